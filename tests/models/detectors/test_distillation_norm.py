"""What batch normalisation does in a student that starts from its teacher."""

import sys
from pathlib import Path

import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

sys.path.insert(0, str(Path(__file__).parent))
from distillation_toys import (  # noqa: E402
    CLASSES,
    CWD,
    KL,
    build,
    make_batch,
    save_teacher,
    total,
    yolo,
)

MAPS = [dict(source='bbox_head.cls', loss=KL, weight=100.0)]


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    return save_teacher(yolo(2), tmp_path_factory.mktemp('teacher') / 'teacher.pth', CLASSES[:2])


def started(checkpoint, norm_eval):
    model = build(yolo(), yolo(2), checkpoint, MAPS, start_from_teacher=True, norm_eval=norm_eval)
    model.prepare(CLASSES)
    model.start()
    return model.train()


def test_a_student_with_the_teachers_weights_says_the_same(checkpoint):
    term = 'loss_distill_bbox_head_cls'
    kept, noisy = started(checkpoint, True), started(checkpoint, False)
    batch = make_batch(kept)
    assert kept.loss(*batch)[term].item() == pytest.approx(0, abs=1e-5)
    assert noisy.loss(*batch)[term].item() > 1e-3


def test_statistics_stay_and_everything_else_trains(checkpoint):
    model = started(checkpoint, True)
    buffers = {k: v.clone() for k, v in model.named_buffers() if 'running' in k}
    batch = make_batch(model)
    losses = model.loss(*batch)
    total(losses).backward()
    after = dict(model.named_buffers())
    assert all(torch.equal(v, after[k]) for k, v in buffers.items())
    norms = [m for m in model.student.modules() if isinstance(m, _BatchNorm)]
    assert norms and not any(m.training for m in norms)
    assert all(m.weight.grad is not None for m in norms)
    assert model.student.backbone.stem.training and model.student.training


def test_the_mode_follows_train_and_eval(checkpoint):
    model = started(checkpoint, True)
    assert not model.eval().student.training
    assert model.train() is model and model.student.training
    assert not model.student.backbone.stem.bn.training
    assert started(checkpoint, False).student.backbone.stem.bn.training


def test_a_frozen_source_may_be_its_teachers_until_it_trains(checkpoint):
    term = dict(source='backbone.stage1', loss=CWD)
    options = dict(start_from_teacher=True, norm_eval=True, zero_patience=2)
    model = build(yolo(), yolo(2), checkpoint, [term], **options)
    model.prepare(CLASSES)
    model.start()
    batch = make_batch(model.train())
    model.student.backbone.requires_grad_(False)
    for _ in range(3):
        assert model.loss(*batch)['loss_distill_backbone_stage1'].item() == 0
    assert model.unused_terms() == ['loss_distill_backbone_stage1']
    model.student.backbone.requires_grad_(True)
    model.loss(*batch)
    with pytest.raises(RuntimeError, match='was 0 in each of the first 2 iterations that train it'):
        model.loss(*batch)
    with torch.no_grad():
        model.student.backbone.stem.conv.weight.mul_(1.5)
    assert model.loss(*batch)['loss_distill_backbone_stage1'].item() > 0
    assert model.unused_terms() == []


def test_mixed_precision(checkpoint):
    maps = [
        dict(source='neck', loss=CWD),
        dict(source='bbox_head.cls', loss=KL, weight=100.0),
        dict(source='bbox_head.reg', loss=dict(type='BoxDistributionKLLoss')),
    ]
    model = build(yolo(), yolo(2), checkpoint, maps, pseudo_labels=dict(score_thr=0.0))
    model.prepare(CLASSES)
    batch = make_batch(model.train())
    exact = {k: v for k, v in model.loss(*batch).items() if 'distill' in k}
    before = {k: v.clone() for k, v in model.teacher.model.state_dict().items()}
    with torch.autocast('cpu', dtype=torch.bfloat16):
        losses = model.loss(*batch)
    for key, value in exact.items():
        assert losses[key].dtype == torch.float32
        assert losses[key].item() == pytest.approx(value.item(), rel=0.1)
    total(losses).backward()
    gradients = [p.grad for p in model.student.parameters() if p.requires_grad]
    assert all(g is not None and torch.isfinite(g).all() for g in gradients)
    after = model.teacher.model.state_dict()
    assert all(torch.equal(v, after[k]) for k, v in before.items())
