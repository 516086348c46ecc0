import importlib.util
import runpy
import sys

import pytest
import torch

from mmdet_contrast.converters import onnx as export
from mmdet_contrast.utils.config import LaunchError, load_config
from mmdet_contrast.utils.model import build_detector

NAMES = ['cls_score', 'bbox_pred']
needs_onnx = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ('onnx', 'onnxruntime')),
    reason='the packages onnx and onnxruntime are not installed',
)


@pytest.fixture(scope='module')
def config(request):
    return str(request.config.rootpath / 'configs' / 'contrast/retina_shapes.py')


@pytest.fixture(scope='module')
def model(config):
    torch.manual_seed(0)
    return build_detector(load_config(config))


@pytest.fixture(scope='module')
def checkpoint(model, tmp_path_factory):
    path = tmp_path_factory.mktemp('onnx') / 'model.pth'
    torch.save(dict(state_dict=model.state_dict(), meta=dict()), path)
    return str(path)


def test_flatten_outputs_names_in_order():
    a, b, c = (torch.full((1,), float(value)) for value in range(3))
    flat = export.flatten_outputs(([a, b], c))
    assert [name for name, _ in flat] == ['output0_level0', 'output0_level1', 'output1']
    assert [tensor.item() for _, tensor in flat] == [0, 1, 2]
    assert [name for name, _ in export.flatten_outputs(a, ['only'])] == ['only']
    with pytest.raises(LaunchError, match='1 output names .*2 kinds of outputs'):
        export.flatten_outputs(([a, b], c), ['cls'])


@needs_onnx
def test_export_runs_at_other_batch_sizes(model, tmp_path):
    import onnxruntime

    path = str(tmp_path / 'deep' / 'model.onnx')
    model.train()
    names = export.export_onnx(model, path, (64, 96), NAMES)
    assert model.training
    model.eval()
    assert names == [f'{name}_level{level}' for name in NAMES for level in range(5)]
    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    assert session.get_inputs()[0].shape == ['batch', 3, 64, 96]
    for batch_size in (1, 5):
        images = torch.randn(batch_size, 3, 64, 96)
        with torch.no_grad():
            expected = [level for maps in model(images, mode='tensor') for level in maps]
        found = session.run(names, {'images': images.numpy()})
        assert len(found) == len(expected) == 10
        for array, tensor in zip(found, expected):
            torch.testing.assert_close(torch.from_numpy(array), tensor, rtol=1e-3, atol=1e-4)
    assert export.check_onnx(model, path, (64, 96)) < 1e-3


@needs_onnx
def test_check_sees_other_weights(model, config, tmp_path):
    path = str(tmp_path / 'x.onnx')
    export.export_onnx(model, path, (64, 64))
    other = build_detector(load_config(config))
    with torch.no_grad():
        other.bbox_head.retina_reg.bias.add_(0.5)
    other.load_state_dict(
        {**model.state_dict(), 'bbox_head.retina_reg.bias': model.bbox_head.retina_reg.bias + 0.5}
    )
    with pytest.raises(AssertionError, match='output1_level0 of .*x.onnx.*: Tensor-likes are not'):
        export.check_onnx(other, path, (64, 64))


@needs_onnx
def test_two_stage_detectors_are_refused(tmp_path):
    class TwoStage(torch.nn.Module):
        with_rpn = True

    with pytest.raises(LaunchError, match='TwoStage has two stages'):
        export.export_onnx(TwoStage(), str(tmp_path / 'x.onnx'), (64, 64))


@needs_onnx
def test_tool(repo_root, config, checkpoint, tmp_path, monkeypatch, capsys):
    tool = str(repo_root / 'tools' / 'model_converters' / 'export_onnx.py')
    out = tmp_path / 'x.onnx'

    def call(*arguments):
        monkeypatch.setattr(sys, 'argv', ['export_onnx.py', *arguments])
        runpy.run_path(tool, run_name='__main__')

    call(config, checkpoint, '--out', str(out), '--shape', '64', '64', '--check')
    assert out.is_file()
    printed = capsys.readouterr().out
    assert 'output1_level4' in printed and 'largest difference' in printed
