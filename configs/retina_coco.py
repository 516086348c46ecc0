# MMDetection's RetinaNet-R50-FPN 1x on COCO: the plain twin of retina_contrast_coco.py. The
# weights are those of torchvision://resnet50, named so that torchvision is not needed.
_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'

custom_imports = dict(imports=['mmdet_contrast'], allow_failed_imports=False)
runner_type = 'mmdet.CheckedRunner'
default_hooks = dict(run_check=dict(type='RunCheckHook'))
model = dict(
    backbone=dict(
        init_cfg=dict(checkpoint='https://download.pytorch.org/models/resnet50-0676ba61.pth')
    )
)
