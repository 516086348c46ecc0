"""The backbone of a checkpoint as a file of its own."""

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmdet_contrast import config_path
from mmdet_contrast.converters import export_backbone
from mmdet_contrast.utils.config import LaunchError


@pytest.fixture(scope='module')
def pretrained(tmp_path_factory):
    """A checkpoint as training writes it, and the weights of its backbone."""
    init_default_scope('mmdet')
    cfg = Config.fromfile(config_path('pretrain/simsiam_shapes.py'))
    model = MODELS.build(cfg.model)
    path = tmp_path_factory.mktemp('checkpoint') / 'epoch_1.pth'
    torch.save(
        dict(meta=dict(epoch=1), state_dict=model.state_dict(), optimizer=dict(state={})), path
    )
    return str(path), model.backbone.state_dict()


@pytest.mark.parametrize('name', ['shapes', 'bccd'])
def test_shipped_configs_train_the_backbone_of_their_detector(name):
    init_default_scope('mmdet')
    detector = Config.fromfile(config_path(f'retina_{name}_pretrained.py')).model.backbone
    assert detector.init_cfg.checkpoint == f'checkpoints/simsiam_{name}.pth'
    sections = [Config.fromfile(config_path(f'{method}_{name}.py')).model.backbone
                for method in ('simsiam', 'simclr')]  # fmt: skip
    shapes = [
        {key: value.shape for key, value in MODELS.build(section).state_dict().items()}
        for section in (*sections, {**detector, 'init_cfg': None})
    ]
    assert shapes[0] == shapes[1] == shapes[2]


def test_writes_the_weights_without_prefix(pretrained, tmp_path):
    source, weights = pretrained
    target = tmp_path / 'new' / 'backbone.pth'
    report = export_backbone(source, str(target))
    content = torch.load(target, weights_only=True)
    assert set(content) == {'meta', 'state_dict'}
    assert content['state_dict'].keys() == weights.keys() == set(report.kept)
    for name, value in weights.items():
        assert torch.equal(content['state_dict'][name], value)
    assert str(target) in str(report) and 'Pretrained' in str(report)


def test_refuses_another_detector_and_writes_nothing(pretrained, tmp_path):
    target = tmp_path / 'backbone.pth'
    other = Config.fromfile(config_path('retina_bccd.py'))
    with pytest.raises(LaunchError, match=r'does not fit .*size mismatch for conv1.weight'):
        export_backbone(pretrained[0], str(target), config=other)
    assert not target.exists()


def test_refuses_a_backbone_with_more_than_that_of_the_detector(tmp_path):
    cfg = Config.fromfile(config_path('retina_shapes.py'))
    backbone = MODELS.build({**cfg.model.backbone, 'init_cfg': None}).state_dict()
    weights = {f'backbone.{key}': value for key, value in backbone.items()}
    torch.save({**weights, 'backbone.layer4.7.w': torch.ones(1)}, tmp_path / 'in.pth')
    with pytest.raises(LaunchError, match=r"has no 'layer4.7.w' \(1 such.*pre-train"):
        export_backbone(str(tmp_path / 'in.pth'), str(tmp_path / 'out.pth'), config=cfg)


def exported(model, checked, folder):
    """Export the backbone of a `model` section, checked with a config."""
    init_default_scope('mmdet')
    source, target = folder / 'detector.pth', folder / 'backbone.pth'
    shapes = {key: value.shape for key, value in MODELS.build(model).state_dict().items()}
    # a single number in the file, whatever the shape
    weights = {key: torch.zeros(()).expand(shape) for key, shape in shapes.items()}
    torch.save(dict(state_dict=weights), source)
    return export_backbone(str(source), str(target), config=checked), target


def test_compares_with_the_backbone_that_the_detector_builds(tmp_path):
    cfg = Config.fromfile(config_path('yolov8_n_shapes.py'))
    report, target = exported(cfg.model, cfg, tmp_path)
    own = MODELS.build(cfg.model).backbone.state_dict()
    assert set(report.kept) == set(own) and report.checked == cfg.filename
    target.unlink()
    # what the section says without `scale` is the backbone of YOLOv8-l
    with pytest.raises(LaunchError, match='does not fit the model of the config'):
        exported({**cfg.model, 'scale': 'l'}, cfg, tmp_path)
    assert not target.exists()


def test_compares_with_the_student_of_a_distillation(repo_root, tmp_path):
    cfg = Config.fromfile(repo_root / 'projects/mar20/mar20_log.py')
    student = cfg.model.student
    cfg.model.student = config_path('yolov8_n_coco.py')
    # neither the teacher's config nor its checkpoint is looked for
    cfg.model.teacher = cfg.model.teacher_checkpoint = str(tmp_path / 'absent')
    report, target = exported(student, cfg, tmp_path)
    assert len(report.kept) == len(torch.load(target, weights_only=True)['state_dict']) > 100
    other = Config.fromfile(config_path('retina_shapes.py')).model
    with pytest.raises(LaunchError, match='does not fit the model of the config'):
        exported(other, cfg, tmp_path)


def test_refuses_a_wrong_prefix(pretrained, tmp_path):
    with pytest.raises(LaunchError, match=r"below 'student\.'; its keys begin with .*backbone"):
        export_backbone(pretrained[0], str(tmp_path / 'x.pth'), prefix='student')
