"""Teachers, students and batches for the tests of the wrapper."""

import torch
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmdet_contrast import config_path

CLASSES = ('striped_disc', 'checkered_square', 'dotted_triangle')
CWD = dict(type='ChannelWiseDivergence', tau=2.0)
KL = dict(type='LogitsKLDivergence', tau=2.0)


def yolo(num_classes=3, **kwargs):
    cfg = Config.fromfile(config_path('yolov8/yolov8_n_shapes.py')).model
    cfg.bbox_head.num_classes = num_classes
    if kwargs:
        cfg.pop('scale')
        factors = dict(deepen_factor=0.33, widen_factor=kwargs['widen'])
        cfg.backbone.update(factors, last_stage_out_channels=1024)
        cfg.neck.update(factors, in_channels=[256, 512, 1024])
        cfg.bbox_head.update(in_channels=[256, 512, 1024], widen_factor=kwargs['widen'])
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


def save_teacher(cfg, path, classes):
    """Write a checkpoint of a detector with the given config, as a run would."""
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


def build(student, teacher, checkpoint, distillers=(), **kwargs):
    init_default_scope('mmdet')
    torch.manual_seed(0)
    model = MODELS.build(
        dict(
            type='DistillationDetector',
            student=student,
            teacher=teacher,
            teacher_checkpoint=checkpoint,
            distillers=list(distillers),
            **kwargs,
        )
    )
    model.init_weights()
    model.has_hook = True
    return model.train()


def make_batch(model, num_classes=3, size=64):
    data = demo_mm_inputs(2, [(3, size, size)] * 2, num_classes=num_classes)
    data = model.data_preprocessor(data, True)
    return data['inputs'], data['data_samples']


def total(losses):
    return sum(v if torch.is_tensor(v) else sum(v) for v in losses.values())
