"""``tools/analysis_tools/get_flops.py`` against MMEngine and MMDetection, and by hand."""

import re
import runpy
import sys
from functools import partial

import pytest
from mmdet.structures import DetDataSample
from mmengine.analysis import get_model_complexity_info
from mmengine.hub import get_config
from mmengine.logging import MMLogger

from mmdet_contrast import config_path
from mmdet_contrast.utils.config import load_config
from mmdet_contrast.utils.model import build_detector, dummy_images

SHAPE = (64, 96)


@pytest.fixture
def tool(repo_root):
    logger = MMLogger.get_current_instance()
    level = logger.level
    yield str(repo_root / 'tools/analysis_tools/get_flops.py')
    # the tool is quiet
    logger.setLevel(level)


@pytest.mark.parametrize('stages', [1, 2])
def test_numbers_are_those_of_mmengine(stages, tool):
    config = config_path('retina_shapes.py')
    if stages == 2:
        config = get_config('mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py')
    model = build_detector(load_config(config))
    found = runpy.run_path(tool)['complexity'](model, SHAPE)
    # as MMDetection's tool does it: samples bound to the forward pass
    metainfo = dict(img_shape=SHAPE, batch_input_shape=SHAPE, scale_factor=(1, 1))
    samples = [DetDataSample(metainfo=metainfo)]
    model.forward = partial(model.forward, data_samples=samples)
    wanted = get_model_complexity_info(model, inputs=(dummy_images(SHAPE),))
    assert (found['flops'], found['params']) == (wanted['flops'], wanted['params'])
    assert found['params'] == sum(weight.numel() for weight in model.parameters())


def test_tool(tool, monkeypatch, capsys):
    def call(*arguments):
        monkeypatch.setattr(sys, 'argv', ['get_flops.py', *arguments])
        runpy.run_path(tool, run_name='__main__')
        return capsys.readouterr().out

    # the weights that the config names are not loaded
    monkeypatch.setattr(
        'mmengine.runner.checkpoint.CheckpointLoader.load_checkpoint',
        lambda *args, **kwargs: pytest.fail('weights were loaded'),
    )
    text = call(
        config_path('retina_contrast_coco.py'),
        '--shape',
        '64',
        '96',
        '--cfg-options',
        'model.bbox_head.contrast.projector.hidden_channels=16',
    )
    assert 'bbox_head.retina_cls' in text and 'one image of 3 x 64 x 96: ' in text
    assert 'WARNING' not in text
    # ResNet-50's stem and first stage, which the config freezes
    numbers = re.search(r'([\d,]+) parameters, ([\d,]+) of them trained', text).groups()
    whole, trained = (int(number.replace(',', '')) for number in numbers)
    assert whole - trained == 225344
    with pytest.raises(SystemExit, match="get_flops.py: error: config file 'no.py' does not exist"):
        call('no.py')
