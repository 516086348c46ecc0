import importlib.util
import runpy
import sys

import pytest
import torch

from mmdet_contrast.utils import onnx as export
from mmdet_contrast.utils.launch import load_config
from mmdet_contrast.utils.plain_forward import build_detector

NAMES = ['cls_score', 'bbox_pred']
needs_onnx = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ('onnx', 'onnxruntime')),
    reason='the packages onnx and onnxruntime are not installed',
)


@pytest.fixture(scope='module')
def config(request):
    return str(request.config.rootpath / 'configs' / 'retina_shapes.py')


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
    with pytest.raises(ValueError, match='1 output names .*2 kinds of outputs'):
        export.flatten_outputs(([a, b], c), ['cls'])
    with pytest.raises(ValueError, match='output1_level0 of the head is a dict'):
        export.flatten_outputs((a, [dict()]))


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
    path = str(tmp_path / 'model.onnx')
    export.export_onnx(model, path, (64, 64))
    other = build_detector(load_config(config))
    with torch.no_grad():
        other.bbox_head.retina_reg.bias.add_(0.5)
    other.load_state_dict(
        {**model.state_dict(), 'bbox_head.retina_reg.bias': model.bbox_head.retina_reg.bias + 0.5}
    )
    with pytest.raises(ValueError, match='differs from the model by 0.5 in output1_level0'):
        export.check_onnx(other, path, (64, 64))


@needs_onnx
def test_two_stage_detectors_are_refused(tmp_path):
    class TwoStage(torch.nn.Module):
        with_rpn = True

    with pytest.raises(ValueError, match='TwoStage has two stages'):
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
    with pytest.raises(SystemExit, match='export_onnx.py: error: no checkpoint at .*no.pth'):
        call(config, 'no.pth', '--out', str(out))


def test_missing_package_is_one_sentence(config, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    monkeypatch.setitem(sys.modules, 'onnx', torch)
    with pytest.raises(ImportError, match='onnxruntime.*pip install onnx onnxruntime'):
        export.export_config(config, checkpoint, tmp_path / 'x.onnx', check=True)
    monkeypatch.setitem(sys.modules, 'onnx', None)
    with pytest.raises(ImportError, match='package onnx .*pip install onnx onnxruntime'):
        export.export_config(config, checkpoint, tmp_path / 'x.onnx')


def test_wrong_checkpoints_are_named(model, config, tmp_path):
    weights = model.state_dict()
    path = str(tmp_path / 'other.pth')
    torch.save({f'module.{key}': value for key, value in weights.items()}, path)
    loaded = build_detector(load_config(config), path).state_dict()
    assert all(torch.equal(loaded[key], weights[key]) for key in weights)
    part = {key: value for key, value in weights.items() if not key.startswith('neck')}
    torch.save(dict(state_dict=part), path)
    with pytest.raises(ValueError, match="lacks 24 of 160 .*'neck.lateral_convs.0.conv.weight'"):
        build_detector(load_config(config), path)
    torch.save(dict(state_dict={**weights, 'bbox_head.retina_cls.bias': torch.zeros(3)}), path)
    with pytest.raises(ValueError, match=r"'bbox_head.retina_cls.bias' of shape \(3,\)"):
        build_detector(load_config(config), path)
