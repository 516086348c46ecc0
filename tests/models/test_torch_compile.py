import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmdet_contrast import config_path


@pytest.mark.slow
def test_yolov8_is_one_graph_with_the_same_maps():
    init_default_scope('mmdet')
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile(config_path('yolov8/yolov8_n_coco.py')).model).eval()
    # fullgraph: a graph break is an error. What the graph is compiled to is torch's affair.
    compiled = torch.compile(model, backend='eager', fullgraph=True)
    images = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        expected = model(images, mode='tensor')
        found = compiled(images, mode='tensor')
    torch.testing.assert_close(found, expected)
