import os

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config

from mmdet_contrast import config_path
from mmdet_contrast.models.distill import Teacher
from mmdet_contrast.utils.config import LaunchError


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
