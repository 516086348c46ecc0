# YOLOv8's neck and head on Swin-T: any backbone of MMDetection with strides 8, 16 and 32 will do.
_base_ = './yolov8_n_coco.py'

model = dict(
    # the sizes are those of YOLOv8CSPDarknet; this neck takes the backbone's channels as they are
    scale=None,
    # what this backbone was pre-trained with
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
    backbone=dict(
        _delete_=True,
        type='SwinTransformer',
        embed_dims=96,
        depths=[2, 2, 6, 2],
        num_heads=[3, 6, 12, 24],
        window_size=7,
        drop_path_rate=0.2,
        out_indices=(1, 2, 3),
        convert_weights=True,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://github.com/SwinTransformer/storage/releases/download/v1.0.0/'
            'swin_tiny_patch4_window7_224.pth',
        ),
    ),
    neck=dict(in_channels=[192, 384, 768], deepen_factor=0.33),
    bbox_head=dict(in_channels=[192, 384, 768]),
)

# as MMDetection trains Swin: no decay of norms and position biases
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=0.0005, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(
        custom_keys={
            'absolute_pos_embed': dict(decay_mult=0.0),
            'relative_position_bias_table': dict(decay_mult=0.0),
        }
    ),
)
param_scheduler = [
    _base_.param_scheduler[0],
    dict(
        type='CosineAnnealingLR',
        eta_min=5e-6,
        T_max=_base_.max_epochs - _base_.warmup_epochs,
        by_epoch=True,
        begin=_base_.warmup_epochs,
        end=_base_.max_epochs,
    ),
]
# Adam needs no warm-up of the biases
custom_hooks = _base_.custom_hooks[1:]
