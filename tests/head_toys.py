"""A small detector with each of the heads that learn from a teacher."""

import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmdet_contrast import config_path

CLASSES = ('striped_disc', 'checkered_square', 'dotted_triangle')


def yolo(num_classes=3, widen=0.125):
    """YOLOv8 of half the width of n, whose weights are drawn in a quarter of the time."""
    cfg = Config.fromfile(config_path('yolov8/yolov8_n_shapes.py')).model
    cfg.bbox_head.num_classes = num_classes
    cfg.pop('scale')
    factors = dict(deepen_factor=0.33, widen_factor=widen)
    cfg.backbone.update(factors, last_stage_out_channels=1024)
    cfg.neck.update(factors, in_channels=[256, 512, 1024])
    cfg.bbox_head.update(in_channels=[256, 512, 1024], widen_factor=widen)
    return cfg


def retina(num_classes=3, base_channels=16):
    cfg = Config.fromfile(config_path('retina_shapes.py')).model
    cfg.bbox_head.num_classes = num_classes
    if base_channels != 16:
        cfg.backbone.base_channels = base_channels
        cfg.neck.in_channels = [base_channels * k for k in (1, 2, 4, 8)]
    return cfg


def gfl(num_classes=3):
    cfg = Config.fromfile(config_path('gfl_contrast_shapes.py')).model
    cfg.data_preprocessor.type = 'DetDataPreprocessor'
    cfg.bbox_head.type = 'GFLHead'
    cfg.bbox_head.pop('contrast')
    cfg.bbox_head.num_classes = num_classes
    return cfg


def fcos(num_classes=3):
    cfg = Config.fromfile(config_path('fcos_contrast_shapes.py')).model
    cfg.data_preprocessor.type = 'DetDataPreprocessor'
    cfg.bbox_head.type = 'FCOSHead'
    cfg.bbox_head.pop('contrast')
    cfg.bbox_head.update(num_classes=num_classes, norm_on_bbox=True)
    return cfg


def atss(num_classes=3):
    cfg = gfl(num_classes)
    cfg.type = 'ATSS'
    cfg.bbox_head.pop('loss_dfl')
    cfg.bbox_head.pop('reg_max')
    cfg.bbox_head.loss_cls = dict(type='FocalLoss', use_sigmoid=True)
    cfg.bbox_head.update(
        type='ATSSHead',
        bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_stds=[0.1, 0.1, 0.2, 0.2]),
    )
    return cfg


def rtmdet(num_classes=3):
    cfg = retina(num_classes)
    cfg.type = 'RTMDet'
    cfg.neck.num_outs = 3
    cfg.bbox_head = dict(
        type='RTMDetSepBNHead',
        num_classes=num_classes,
        in_channels=64,
        stacked_convs=1,
        feat_channels=32,
        anchor_generator=dict(type='MlvlPointGenerator', offset=0, strides=[8, 16, 32]),
        bbox_coder=dict(type='DistancePointBBoxCoder'),
        loss_cls=dict(type='QualityFocalLoss', use_sigmoid=True, beta=2.0, loss_weight=1.0),
        loss_bbox=dict(type='GIoULoss', loss_weight=2.0),
        with_objectness=False,
        exp_on_reg=True,
        norm_cfg=dict(type='BN'),
    )
    assigner = dict(type='DynamicSoftLabelAssigner', topk=13)
    cfg.train_cfg = dict(assigner=assigner, allowed_border=-1, pos_weight=-1, debug=False)
    return cfg


HEADS = dict(yolo=yolo, retina=retina, gfl=gfl, fcos=fcos, atss=atss, rtmdet=rtmdet)


def save_teacher(cfg, path, classes):
    """Write a checkpoint of a detector with the given config, as a run would."""
    # the fixtures of a module come before those of a test
    init_default_scope('mmdet')
    torch.manual_seed(1)
    model = MODELS.build(cfg)
    model.init_weights()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
    meta = dict(dataset_meta=dict(classes=classes))
    torch.save(dict(state_dict=model.state_dict(), meta=meta), path)
    return str(path)
