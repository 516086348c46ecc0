import copy

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmdet_contrast import config_path
from mmdet_contrast.models.layers import YOLOV8_SCALES

PARAMETERS = dict(n=3157200, s=11166560, m=25902640, l=43691520, x=68229648)


@pytest.fixture(scope='module')
def shipped():
    init_default_scope('mmdet')
    return Config.fromfile(config_path('yolov8/yolov8_n_coco.py')).model


@pytest.mark.parametrize('scale', YOLOV8_SCALES)
def test_number_of_parameters_is_the_published_one(shipped, scale):
    with torch.device('meta'):
        model = MODELS.build(dict(shipped, scale=scale))
    # the published counts include the 16 fixed bins, stored there as a convolution
    assert sum(p.numel() for p in model.parameters()) + 16 == PARAMETERS[scale]


def test_a_factor_of_one_part_counts(shipped):
    cfg = copy.deepcopy(shipped)
    cfg.neck.deepen_factor = 1.0
    with torch.device('meta'):
        model = MODELS.build(cfg)
    assert len(model.neck.top_down_blocks[0].blocks) == 3
    assert len(model.backbone.stage1[1].blocks) == 1


def test_one_step_lowers_the_loss_and_predicts(shipped):
    torch.manual_seed(0)
    model = MODELS.build(dict(shipped, test_cfg=dict(shipped.test_cfg, score_thr=0.0)))
    model.init_weights()
    model.train()
    data = model.data_preprocessor(demo_mm_inputs(2, [(3, 64, 64), (3, 64, 96)]), True)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    values = []
    for _ in range(4):
        losses = model.loss(data['inputs'], data['data_samples'])
        total = sum(losses.values())
        values.append(total.item())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    assert values[-1] < values[0]
    model.eval()
    with torch.no_grad():
        results = model.predict(data['inputs'], data['data_samples'], rescale=False)
    for result in results:
        instances = result.pred_instances
        assert 0 < len(instances) <= 300
        assert instances.bboxes.isfinite().all()
        assert (instances.labels < 80).all()
