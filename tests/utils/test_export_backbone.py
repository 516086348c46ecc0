"""The backbone of a checkpoint as a file of its own."""

import subprocess
import sys

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmdet_contrast import config_path
from mmdet_contrast.utils.export_backbone import export_backbone


@pytest.fixture(scope='module')
def pretrained(tmp_path_factory):
    """A checkpoint as training writes it, and the weights of its backbone."""
    init_default_scope('mmdet')
    cfg = Config.fromfile(config_path('simsiam/simsiam_shapes.py'))
    model = MODELS.build(cfg.model)
    path = tmp_path_factory.mktemp('checkpoint') / 'epoch_1.pth'
    torch.save(
        dict(meta=dict(epoch=1), state_dict=model.state_dict(), optimizer=dict(state={})), path
    )
    return str(path), model.backbone.state_dict()


@pytest.mark.parametrize('name', ['shapes', 'bccd'])
@pytest.mark.parametrize('method', ['simsiam', 'simclr'])
def test_shipped_configs_train_the_backbone_of_their_detector(name, method):
    init_default_scope('mmdet')
    own = MODELS.build(Config.fromfile(config_path(f'simsiam/{method}_{name}.py')).model.backbone)
    suffix = '' if method == 'simsiam' else '_simclr'
    detector = Config.fromfile(config_path(f'simsiam/retina_{name}_pretrained{suffix}.py'))
    assert detector.model.backbone.init_cfg.checkpoint == f'checkpoints/{method}_{name}.pth'
    theirs = MODELS.build({**detector.model.backbone, 'init_cfg': None})
    shapes = [{k: v.shape for k, v in m.state_dict().items()} for m in (own, theirs)]
    assert shapes[0] == shapes[1]


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
    with pytest.raises(ValueError, match=r'conv1.weight is \(16, .*\(32, .*more such.*pre-train'):
        export_backbone(pretrained[0], str(target), config=other)
    assert not target.exists()
    with pytest.raises(ValueError, match='no model.backbone'):
        export_backbone(pretrained[0], str(target), config=Config(dict(model=dict(type='x'))))


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
    cfg = Config.fromfile(config_path('yolov8/yolov8_n_shapes.py'))
    report, target = exported(cfg.model, cfg, tmp_path)
    own = MODELS.build(cfg.model).backbone.state_dict()
    assert set(report.kept) == set(own) and report.checked == cfg.filename
    target.unlink()
    # what the section says without `scale` is the backbone of YOLOv8-l
    with pytest.raises(ValueError, match='the backbone of the checkpoint is not that of config'):
        exported({**cfg.model, 'scale': 'l'}, cfg, tmp_path)
    assert not target.exists()


@pytest.mark.parametrize('as_path', [False, True])
def test_compares_with_the_student_of_a_distillation(tmp_path, monkeypatch, as_path):
    cfg = Config.fromfile(config_path('distill/shapes20/shapes20_cwd.py'))
    student = cfg.model.student
    if as_path:
        cfg.model.student = config_path('_base_/yolov8_n_shapes20.py')
    # neither the teacher's config nor its checkpoint is looked for
    cfg.model.teacher = cfg.model.teacher_checkpoint = str(tmp_path / 'absent')
    report, target = exported(student, cfg, tmp_path)
    assert len(report.kept) == len(torch.load(target, weights_only=True)['state_dict']) > 100
    other = Config.fromfile(config_path('retina_shapes.py')).model
    with pytest.raises(ValueError, match='is not in the checkpoint .*more such.*pre-train'):
        exported(other, cfg, tmp_path)


def test_the_teacher_of_a_detector_of_mmdetection_is_not_loaded(tmp_path):
    cfg = Config.fromfile(config_path('retina_shapes.py'))
    plain = cfg.model.copy()
    cfg.model.update(
        type='KnowledgeDistillationSingleStageDetector',
        teacher_config=config_path('retina_shapes.py'),
        teacher_ckpt=str(tmp_path / 'absent.pth'),
    )
    report, _ = exported(plain, cfg, tmp_path)
    assert report.kept and cfg.model.teacher_ckpt.endswith('absent.pth')


def test_refuses_a_wrong_prefix_and_a_missing_file(pretrained, tmp_path):
    with pytest.raises(ValueError, match=r"below 'student\.'; its keys begin with .*backbone"):
        export_backbone(pretrained[0], str(tmp_path / 'x.pth'), prefix='student')
    with pytest.raises(FileNotFoundError, match='nowhere'):
        export_backbone(str(tmp_path / 'nowhere.pth'), str(tmp_path / 'x.pth'))


def test_tool(pretrained, tmp_path, repo_root):
    tool = str(repo_root / 'tools/model_converters/export_backbone.py')
    target = tmp_path / 'backbone.pth'
    config = config_path('retina_shapes.py')
    done = subprocess.run(
        [sys.executable, tool, pretrained[0], str(target), '--config', config],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert 'all of them, and no others' in done.stdout
    assert target.exists()
    failed = subprocess.run(
        [sys.executable, tool, str(tmp_path / 'no.pth'), str(target)],
        capture_output=True,
        text=True,
    )
    assert failed.returncode == 1
    assert failed.stderr.strip().startswith('export_backbone.py: error: no checkpoint at')
    assert len(failed.stderr.strip().splitlines()) == 1
