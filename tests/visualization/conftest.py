"""Tensors that are not on the CPU, and what the programs that look inside a detector are run on."""

import runpy
import shutil
import sys

import pytest
import torch
from mmdet.structures.bbox import HorizontalBoxes
from torch import nn

from mmdet_contrast import config_path
from mmdet_contrast.utils.config import load_config
from mmdet_contrast.utils.model import build_detector


class OnGpu(torch.Tensor):
    """A tensor that gives no array until it is copied to the CPU, like one on a GPU."""

    def numpy(self, *args, **kwargs):
        raise TypeError("can't convert cuda:0 device type tensor to numpy.")

    __array__ = numpy

    def cpu(self, *args, **kwargs):
        return self.as_subclass(torch.Tensor)


@pytest.fixture
def on_gpu():
    """Move a tensor, boxes or a detector to a GPU, or make it look so where there is none."""

    def move(thing):
        if torch.cuda.is_available():
            return thing.cuda()
        if isinstance(thing, HorizontalBoxes):
            return HorizontalBoxes(move(thing.tensor), clone=False)
        if isinstance(thing, nn.Module):
            thing.data_preprocessor.register_forward_hook(
                lambda module, given, data: dict(data, inputs=move(data['inputs']))
            )
            return thing
        return thing.as_subclass(OnGpu)

    return move


@pytest.fixture(scope='session')
def checkpoints(tmp_path_factory):
    """Untrained weights of two small detectors: name → config and checkpoint."""
    folder, found = tmp_path_factory.mktemp('weights'), {}
    for name, path in (('retina', 'retina_shapes.py'), ('yolov8', 'yolov8_n_shapes.py')):
        config = config_path(path)
        torch.manual_seed(0)
        model = build_detector(load_config(config))
        with torch.no_grad():
            for key, weight in model.named_parameters():
                if 'cls' in key and weight.dim() == 4:
                    weight.normal_(0, 0.2)
        meta = dict(dataset_meta=dict(classes=('a', 'b', 'c')))
        torch.save(dict(state_dict=model.state_dict(), meta=meta), folder / f'{name}.pth')
        found[name] = (config, str(folder / f'{name}.pth'))
    return found


@pytest.fixture
def call(repo_root, monkeypatch, capsys):
    """Run one of the tools and return what it prints; ``status`` is what it ends with."""

    def run(tool, *arguments, status=None):
        path = str(repo_root / 'tools' / 'analysis_tools' / f'{tool}.py')
        monkeypatch.setattr(sys, 'argv', [f'{tool}.py', *map(str, arguments)])
        capsys.readouterr()
        try:
            runpy.run_path(path, run_name='__main__')
        except SystemExit as ended:
            if status is None:
                raise
            assert ended.code == status
        else:
            assert status is None
        return capsys.readouterr().out

    return run


@pytest.fixture
def folder(tiny_shapes, tmp_path):
    """Two images, a file that only looks like one, and one that does not."""
    target = tmp_path / 'images'
    target.mkdir()
    for path in sorted((tiny_shapes / 'test').iterdir())[:2]:
        shutil.copy(path, target)
    (target / 'broken.jpg').write_bytes(b'no image')
    (target / 'notes.txt').write_text('no image either')
    return target
