import os

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config, ConfigDict

from mmdet_contrast import config_path
from mmdet_contrast.models.distill import Teacher, model_section
from mmdet_contrast.utils.config import LaunchError

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


class Attack:
    def __reduce__(self):
        return os.system, ('touch ran',)


def test_weights_that_do_not_fill_the_teacher_or_are_no_checkpoint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = Config.fromfile(config_path('retina_shapes.py')).model
    config.backbone.init_cfg = None
    weights = MODELS.build(config).state_dict()
    meta = dict(CLASSES=('a', 'b', 'c')[: config.bbox_head.num_classes])
    torch.save(dict(state_dict=weights, meta=meta), 'whole.pth')
    teacher = Teacher(config, 'whole.pth')
    teacher.load()
    for name, value in teacher.model.state_dict().items():
        assert torch.equal(value, weights[name])
    prefixed = {f'model.{name}': value for name, value in weights.items()}
    torch.save(dict(state_dict=prefixed), 'prefixed.pth')
    torch.save([1], 'list.pth')
    torch.save(dict(state_dict=weights, meta=Attack()), 'attack.pth')
    for file, message in (
        ('prefixed.pth', "model.teacher_checkpoint 'prefixed.pth' does not fit .*, but model.b"),
        ('list.pth', 'list.pth.* holds a list'),
        ('attack.pth', 'attack.pth.* needs posix.system'),
    ):
        with pytest.raises(LaunchError, match=message):
            Teacher(config, file).load()
    assert not os.path.exists('ran')
