"""What the wrapper takes from a config, and what it refuses before anything is learnt wrongly."""

import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from mmengine.config import Config
from mmengine.hub import get_config

from mmdet_contrast import config_path
from mmdet_contrast.engine.hooks import DistillationHook

sys.path.insert(0, str(Path(__file__).parent))
from distillation_toys import (  # noqa: E402
    CLASSES,
    CWD,
    KL,
    build,
    gfl,
    make_batch,
    save_teacher,
    yolo,
)

MAPS = [dict(source='bbox_head.cls', loss=KL)]


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    return save_teacher(yolo(2), tmp_path_factory.mktemp('teacher') / 'teacher.pth', CLASSES[:2])


def two_stages():
    cfg = get_config('mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py').model
    cfg.backbone.update(depth=18, base_channels=8, init_cfg=None)
    cfg.neck.update(in_channels=[8, 16, 32, 64], out_channels=8)
    cfg.rpn_head.update(in_channels=8, feat_channels=8)
    cfg.roi_head.bbox_roi_extractor.out_channels = 8
    cfg.roi_head.bbox_head.update(in_channels=8, fc_out_channels=8)
    return cfg


def test_the_data_preprocessor_beside_the_model():
    """MMEngine hands the one that stands beside ``model`` in a config to the model."""
    student, teacher = yolo(), yolo(2)
    beside = dict(student.pop('data_preprocessor'), std=[7.0, 8.0, 9.0])
    teacher.pop('data_preprocessor')
    model = build(student, teacher, None, MAPS, data_preprocessor=beside)
    for preprocessor in (model.data_preprocessor, model.teacher.model.data_preprocessor):
        assert preprocessor.std.flatten().tolist() == [7, 8, 9]


def test_the_teachers_padding_leaves_the_students_images_alone():
    student, teacher = yolo(), yolo(2)
    student.data_preprocessor = dict(type='DetDataPreprocessor', pad_value=0)
    teacher.data_preprocessor = dict(type='DetDataPreprocessor', pad_value=9)
    model = build(student, teacher, None, MAPS)
    inputs, samples = torch.ones(1, 3, 4, 4), [SimpleNamespace(img_shape=(4, 3))]
    theirs = model.teacher.prepare_inputs(inputs, samples, model.data_preprocessor)
    assert (inputs == 1).all()
    assert (theirs[..., 3] == 9).all() and (theirs[..., :3] == 1).all()


def test_weights_of_a_wrapped_model_with_the_classes_of_mmdet_2(checkpoint, tmp_path):
    saved = torch.load(checkpoint, map_location='cpu', weights_only=False)
    state = {f'module.{key}': value for key, value in saved['state_dict'].items()}
    old = tmp_path / 'old.pth'
    torch.save(dict(state_dict=state, meta=dict(CLASSES=CLASSES[:2])), old)
    model = build(yolo(), yolo(2), str(old), start_from_teacher=True)
    model.prepare(CLASSES)
    report = model.start()
    assert model.teacher.classes == CLASSES[:2] and not report.kept and not report.unlike


def test_many_classes_widen_the_branch_unless_it_is_told_not_to(tmp_path):
    """The class branch of YOLOv8-n has as many channels as classes from 64 on."""
    names = tuple(f'class {i}' for i in range(90))
    teacher, student = (
        Config.fromfile(config_path('yolov8/yolov8_n_coco.py')).model for _ in range(2)
    )
    student.bbox_head.num_classes = 90
    path = save_teacher(teacher, tmp_path / 'teacher.pth', names[:80])
    model = build(student, teacher, path, start_from_teacher=True)
    model.prepare(names)
    assert 'have another shape: there the student knows nothing yet' in str(model.start())
    student.bbox_head.head_module = dict(cls_channels=80)
    model = build(student, teacher, path, start_from_teacher=True)
    model.prepare(names)
    report = model.start()
    assert not report.unlike and len(report.by_class) == 6
    row = 'bbox_head.head_module.cls_convs.0.2.weight'
    assert torch.equal(model.state_dict()[row][:80], model.teacher.state[row])


def test_class_maps_of_more_levels_are_refused(checkpoint):
    model = build(gfl(), yolo(2), checkpoint, MAPS)
    model.prepare(CLASSES)
    with pytest.raises(ValueError, match=r"'bbox_head.cls' gives 5 maps and .* 3: choose items"):
        model.loss(*make_batch(model))


def test_a_map_without_a_class_is_refused(checkpoint):
    nothing = dict.fromkeys(CLASSES[:2])
    for options in (dict(distillers=MAPS), dict(pseudo_labels=dict())):
        model = build(yolo(), yolo(2), checkpoint, class_map=nothing, **options)
        with pytest.raises(ValueError, match='leaves out every class of the teacher'):
            model.prepare(CLASSES)
    build(yolo(), yolo(2), checkpoint, class_map=nothing, start_from_teacher=True).prepare(CLASSES)


def test_a_teacher_of_two_stages():
    neck = dict(source='neck', teacher_source='neck[0]', loss=CWD)
    with pytest.raises(ValueError, match='dense bbox_head, which FasterRCNN has not'):
        build(yolo(), two_stages(), None, [neck], pseudo_labels=dict())
    with pytest.raises(ValueError, match="'neck' gives 3 maps and the teacher's 'neck\\[0\\]' 1"):
        build(yolo(), two_stages(), None, [neck])
    neck = dict(source='neck[0]', teacher_source='neck[1]', loss=CWD)
    assert len(build(yolo(), two_stages(), None, [neck]).adapters) == 1


def test_pseudo_labels_would_move_the_rows_of_two_views():
    student = Config.fromfile(config_path('gfl_contrast_shapes.py')).model
    with pytest.raises(ValueError, match='ContrastiveGFLHead, which pairs the boxes of two views'):
        build(student, yolo(2), None, pseudo_labels=dict())
    student.bbox_head.contrast.sampler = dict(type='JitteredBoxes')
    build(student, yolo(2), None, pseudo_labels=dict())


def test_a_start_that_a_loaded_checkpoint_replaces_is_named(checkpoint):
    model = build(yolo(), yolo(2), checkpoint, start_from_teacher=True)
    data = SimpleNamespace(dataset=SimpleNamespace(metainfo=dict(classes=CLASSES)))
    runner = SimpleNamespace(model=model, train_dataloader=data, iter=0, logger=Mock())
    hook = DistillationHook()
    hook.after_load_checkpoint(runner, {})
    before = {key: value.clone() for key, value in model.state_dict().items()}
    hook.before_train(runner)
    (sentence,) = runner.logger.warning.call_args[0]
    assert 'set load_from=None to start from the teacher' in sentence
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in before.items())
    # a run that goes on has started long ago
    runner.iter = 5
    hook.before_train(runner)
    assert runner.logger.warning.call_count == 1
