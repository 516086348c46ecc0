# Learning rates by part: the pre-trained backbone slower, the new projector faster.
_base_ = './retina_contrast_coco.py'

optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys={
            'backbone': dict(lr_mult=0.1),
            'bbox_head.contrast': dict(lr_mult=2.0, decay_mult=0.0),
        }
    )
)
