"""Adding classes to MMDetection's own detectors, made small: what every term does to them."""

import copy

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope

from mmdet_contrast.apis.addition_config import distillation_terms

pytestmark = pytest.mark.slow

CONFIGS = [
    'atss/atss_r50_fpn_1x_coco.py',
    'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
    'fcos/fcos_r50-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco.py',
    'free_anchor/freeanchor_r50_fpn_1x_coco.py',
    'fsaf/fsaf_r50_fpn_1x_coco.py',
    'gfl/gfl_r50_fpn_1x_coco.py',
    'ghm/retinanet_r50_fpn_ghm-1x_coco.py',
    'nas_fcos/nas-fcos_r50-caffe_fpn_fcoshead-gn-head_4xb4-1x_coco.py',
    'paa/paa_r50_fpn_1x_coco.py',
    'pisa/retinanet-r50_fpn_pisa_1x_coco.py',
    'retinanet/retinanet_r50_fpn_1x_coco.py',
    'rtmdet/rtmdet_l_8xb32-300e_coco.py',
    'rtmdet/rtmdet_tiny_8xb32-300e_coco.py',
]
OLD, NEW = ('a', 'b', 'c'), ('d', 'e')


def small_model(name, folder):
    """The model section of a config of MMDetection, narrow, for three classes."""
    (folder / 'base.py').write_text(f"_base_ = 'mmdet::{name}'")
    model = Config.fromfile(folder / 'base.py').model
    model.backbone.pop('init_cfg', None)
    model.bbox_head.num_classes = len(OLD)
    if model.type == 'RTMDet':
        model.backbone.update(deepen_factor=0.167, widen_factor=0.125)
        model.neck.update(in_channels=[32, 64, 128], out_channels=32, num_csp_blocks=1)
        model.bbox_head.update(in_channels=32, feat_channels=32)
    else:
        model.backbone.update(depth=18, base_channels=16)
        model.neck.in_channels = [16, 32, 64, 128]
    return model


def stir(module, amount):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * amount)


def terms_of(model):
    data = demo_mm_inputs(2, [(3, 128, 128)] * 2, num_classes=len(NEW))
    for sample in data['data_samples']:
        sample.gt_instances.labels += len(OLD)
    data = model.data_preprocessor(data, True)
    losses = model.loss(data['inputs'], data['data_samples'])
    sum(sum(v) if isinstance(v, list) else v.sum() for k, v in losses.items()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.student.parameters())
    return torch.stack([value for name, value in losses.items() if 'distill' in name])


@pytest.mark.parametrize('name', CONFIGS)
def test_terms_are_0_at_the_teacher_and_positive_elsewhere(name, tmp_path):
    init_default_scope('mmdet')
    torch.manual_seed(0)
    teacher = small_model(name, tmp_path)
    network = MODELS.build(teacher)
    network.init_weights()
    # as initialised, all locations give the same
    stir(network.bbox_head, 0.05)
    for layer in getattr(network.bbox_head, 'rtm_reg', ()):
        # distances as they come: else hardly a box has an area
        torch.nn.init.constant_(layer.bias, 1.0)
    checkpoint = str(tmp_path / 'teacher.pth')
    torch.save(dict(state_dict=network.state_dict()), checkpoint)

    student = copy.deepcopy(teacher)
    student.bbox_head.num_classes = len(OLD + NEW)
    wrapper = dict(
        type='DistillationDetector',
        student=student,
        teacher=teacher,
        teacher_checkpoint=checkpoint,
        teacher_classes=OLD,
        student_classes=OLD + NEW,
        annotated_classes=NEW,
        start_from_teacher=True,
        norm_eval=True,
        distillers=distillation_terms(network.bbox_head),
    )
    model = MODELS.build(ConfigDict(wrapper))
    model.init_weights()
    model.prepare()
    model.start()
    model.train()
    torch.testing.assert_close(
        terms_of(model), torch.zeros(len(model.distillers)), rtol=0, atol=1e-3
    )
    for amount in (0.001, 0.02, 0.1):
        stir(model.student, amount)
        values = terms_of(model)
        assert values.isfinite().all() and values.min() >= -1e-4, values
    assert values.min() > 1e-3
