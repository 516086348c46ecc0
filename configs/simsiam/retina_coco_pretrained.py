# retina_coco.py from a backbone that simsiam_r50_coco.py has pre-trained:
# python tools/model_converters/export_backbone.py CHECKPOINT checkpoints/simsiam_r50_coco.pth
_base_ = '../retina_coco.py'

model = dict(
    backbone=dict(
        init_cfg=dict(
            _delete_=True, type='Pretrained', checkpoint='checkpoints/simsiam_r50_coco.pth'
        )
    )
)
