import pytest
import torch
from mmengine.config import Config, ConfigDict
from torch import nn

from mmdet_contrast import config_path
from mmdet_contrast.utils.config import load_config
from mmdet_contrast.utils.model import (
    ModuleCapture,
    build_detector,
    find_module,
    model_section,
)


class Nested(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 1)
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, x):
        y = self.conv(x)
        return dict(levels=(y, [y * 2]), vector=y.mean((2, 3)), size=3, again=self.conv(x + 1))


@pytest.fixture
def model():
    return nn.Sequential(nn.ReLU(), Nested())


def test_maps_of_nests_and_of_repeated_calls(model):
    x = torch.randn(1, 1, 4, 5)
    with ModuleCapture(model, ['1', '1.conv', '1']) as capture:
        outputs = model(x)
    # in the order in which they came; `conv` is done before the module around it
    assert [(entry.name, entry.level) for entry in capture.maps] == [
        ('1.conv', 0), ('1.conv', 1), ('1', 0), ('1', 1), ('1', 2),
    ]  # fmt: skip
    assert torch.equal(capture.maps[3].features, outputs['levels'][1][0])
    assert capture.chosen() == [2, 3, 4, 0, 1]
    assert capture.chosen(1) == [3, 1]
    assert outputs['size'] == 3
    assert not any(module._forward_hooks for module in model.modules())


def test_hooks_go_after_an_error(model):
    with pytest.raises(RuntimeError), ModuleCapture(model, ['1.conv']):
        model(torch.zeros(1, 5, 2, 2))
    assert not any(module._forward_hooks for module in model.modules())


def test_copies_are_safe_from_changes_in_place():
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU(inplace=True))
    nn.init.ones_(model[0].weight)
    nn.init.zeros_(model[0].bias)
    x = torch.linspace(-1, 1, 36).reshape(1, 1, 6, 6)
    for gradient in (False, True):
        with ModuleCapture(model, ['0'], gradient=gradient) as capture:
            model(x)
        assert float(capture.maps[0].features.min()) < 0
        assert capture.maps[0].features.requires_grad == gradient


@pytest.mark.parametrize('number', [0, 5])
def test_maps_of_regions_are_not_those_of_one_image(model, number):
    with ModuleCapture(model, ['0', '1.conv']) as capture:
        model[0](torch.zeros(1, 1, 4, 5))
        model[1](torch.zeros(number, 1, 7, 7))
    assert capture.chosen() == [0, 1, 2]
    message = f"'1.conv' gives a map for each of {number} regions.*: choose a module before"
    with pytest.raises(ValueError, match=message):
        capture.chosen(one_image=True)
    with pytest.raises(ValueError, match=message):
        capture.chosen(0, one_image=True)
    with ModuleCapture(model, ['0']) as capture:
        model[0](torch.zeros(1, 1, 4, 5))
    assert capture.chosen(one_image=True) == [0]


def test_wrong_names(model):
    for name, message in (
        ('1.con', r"Sequential has no module '1.con': 1 has conv, pool; did you mean 1.conv"),
        ('backbone', r"no module 'backbone': it has 0, 1\."),
        ('', "no module ''"),
        ('1.conv.weight', 'conv has no parts; did you mean 1.conv'),
    ):
        with pytest.raises(ValueError, match=message):
            find_module(model, name)
    with ModuleCapture(model, ['1.pool']) as capture:
        model(torch.zeros(1, 1, 2, 2))
    with pytest.raises(ValueError, match="module '1.pool' gave no feature map"):
        capture.chosen()


MODEL = dict(type='RetinaNet', backbone=dict(depth=18))


def test_a_section_a_config_and_a_path_are_the_same(tmp_path):
    path = tmp_path / 'config.py'
    path.write_text(f'model = {MODEL!r}\n')
    for given in (MODEL, dict(model=MODEL), Config.fromfile(str(path)), str(path), path):
        section = model_section(given)
        assert isinstance(section, ConfigDict) and section == MODEL
        assert section.backbone.depth == 18


def test_the_data_preprocessor_is_the_models_then_its_configs_then_the_given():
    own, beside, given = dict(mean=[1]), dict(mean=[2]), dict(mean=[3])
    whole = dict(model=dict(MODEL, data_preprocessor=own), data_preprocessor=beside)
    assert model_section(whole, given).data_preprocessor == own
    whole = dict(model=MODEL, data_preprocessor=beside)
    assert model_section(whole, given).data_preprocessor == beside
    assert model_section(MODEL, given).data_preprocessor == given
    assert 'data_preprocessor' not in model_section(MODEL) and 'data_preprocessor' not in MODEL


def test_a_detector_normalises_as_its_config_says_beside_the_model():
    cfg = load_config(config_path('retina_shapes.py'))
    mean = torch.tensor(cfg.model.data_preprocessor.mean)
    cfg.data_preprocessor = cfg.model.pop('data_preprocessor')
    assert torch.equal(build_detector(cfg).data_preprocessor.mean.flatten(), mean)
