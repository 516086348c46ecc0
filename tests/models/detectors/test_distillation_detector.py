"""The wrapper: what its state is, what its terms are, what it refuses; tiny real training runs."""

import copy
import json
import sys
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.runner import Runner

from mmdet_contrast import config_path
from mmdet_contrast.models.distill import map_classes

sys.path.insert(0, str(Path(__file__).parent))
from distillation_toys import (  # noqa: E402
    CLASSES,
    CWD,
    KL,
    build,
    gfl,
    make_batch,
    retina,
    save_teacher,
    total,
    yolo,
)


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    return save_teacher(yolo(2), tmp_path_factory.mktemp('teacher') / 'teacher.pth', CLASSES[:2])


def test_state_dict_is_the_students(checkpoint):
    model = build(yolo(), yolo(2), checkpoint, [dict(source='neck', loss=CWD)])
    plain = MODELS.build(yolo())
    assert list(model.state_dict()) == list(plain.state_dict())
    plain.load_state_dict(model.state_dict(), strict=True)
    torch.nn.init.constant_(plain.backbone.stem.conv.weight, 0.25)
    model.load_state_dict(plain.state_dict(), strict=True)
    assert (model.student.backbone.stem.conv.weight == 0.25).all()


def test_mmengine_loads_a_plain_checkpoint(checkpoint, tmp_path):
    from mmengine.runner.checkpoint import get_state_dict, load_checkpoint

    model = build(yolo(), yolo(2), checkpoint, [dict(source='neck', loss=CWD)])
    plain = MODELS.build(yolo())
    torch.save(dict(state_dict=plain.state_dict()), tmp_path / 'plain.pth')
    load_checkpoint(model, str(tmp_path / 'plain.pth'), strict=True)
    for name, value in get_state_dict(model).items():
        assert torch.equal(value, plain.state_dict()[name])


def test_the_teacher_is_nowhere_to_be_found(checkpoint):
    model = build(yolo(), yolo(2), checkpoint, [dict(source='bbox_head.cls', loss=KL)])
    model.prepare(CLASSES)
    teacher = {id(p) for p in model.teacher.model.parameters()}
    assert not teacher & {id(p) for p in model.parameters()}
    assert sum(p.numel() for p in model.parameters()) == sum(
        p.numel() for p in MODELS.build(yolo()).parameters()
    )
    twin = copy.deepcopy(model)
    assert twin.teacher is model.teacher
    model.train()
    assert not any(m.training for m in model.teacher.model.modules())


def test_terms_equal_the_losses_on_the_maps(checkpoint):
    model = build(
        yolo(),
        yolo(2),
        checkpoint,
        [
            dict(source='backbone.stage2', loss=CWD, weight=0.5),
            dict(source='neck', loss=CWD, name='pyramid'),
            dict(source='bbox_head.cls', loss=KL, weight=3.0),
            dict(source='bbox_head.reg', loss=dict(type='BoxDistributionKLLoss')),
        ],
    )
    # the teacher's second class is the student's first
    model.class_map = {CLASSES[1]: CLASSES[0], CLASSES[0]: CLASSES[2]}
    model.prepare(CLASSES)
    assert model.shared == ([0, 1], [2, 0])
    inputs, samples = make_batch(model)
    losses = model.loss(inputs, samples)
    names = ('backbone_stage2', 'pyramid', 'bbox_head_cls', 'bbox_head_reg')
    assert {k for k in losses if 'distill' in k} == {f'loss_distill_{n}' for n in names}

    student, teacher = model.student, model.teacher.model
    with torch.no_grad():
        first, second = student.backbone(inputs), teacher.backbone(inputs)
        pyramids = student.neck(first), teacher.neck(second)
        heads = student.bbox_head(pyramids[0]), teacher.bbox_head(pyramids[1])
    cwd, kl = MODELS.build(CWD), MODELS.build(KL)
    close = dict(rtol=1e-4, atol=1e-6)
    # stage2 is the backbone's first output
    torch.testing.assert_close(
        losses[f'loss_distill_{names[0]}'], 0.5 * cwd(first[0], second[0]), **close
    )
    expected = torch.stack([cwd(a, b) for a, b in zip(*pyramids)]).mean()
    torch.testing.assert_close(losses['loss_distill_pyramid'], expected, **close)
    expected = kl([m[:, [2, 0]] for m in heads[0][0]], list(heads[1][0]))
    torch.testing.assert_close(losses[f'loss_distill_{names[2]}'], 3 * expected, **close)
    confidence = [m.amax(1).sigmoid() for m in heads[1][0]]
    expected = MODELS.build(dict(type='BoxDistributionKLLoss'))(
        *[list(h[1]) for h in heads], confidence
    )
    torch.testing.assert_close(losses[f'loss_distill_{names[3]}'], expected, **close)


def test_teacher_stays_and_the_student_learns_from_every_term(checkpoint):
    model = build(
        yolo(),
        yolo(2),
        checkpoint,
        [dict(source='neck[0]', loss=CWD), dict(source='bbox_head.cls', loss=KL)],
    )
    model.prepare(CLASSES)
    before = {k: v.clone() for k, v in model.teacher.model.state_dict().items()}
    inputs, samples = make_batch(model)
    for key in ('loss_distill_neck_0', 'loss_distill_bbox_head_cls'):
        model.zero_grad()
        model.loss(inputs, samples)[key].backward()
        assert model.student.backbone.stem.conv.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in model.teacher.model.parameters())
    after = model.teacher.model.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items())


@pytest.mark.parametrize(
    ('student', 'teacher', 'source', 'teacher_source', 'adapters'),
    [
        (yolo(), yolo(3, widen=0.375), 'neck', 'neck', 3),
        (retina(), retina(3, 32), 'backbone', 'backbone', 4),
        (retina(), gfl(), 'neck', 'neck', 0),
    ],
    ids=['yolov8', 'retinanet', 'gfl to retinanet'],
)
def test_adapters_where_channels_differ(
    student, teacher, source, teacher_source, adapters, tmp_path
):
    path = save_teacher(teacher, tmp_path / 'teacher.pth', CLASSES)
    terms = [dict(source=source, teacher_source=teacher_source, loss=CWD)]
    model = build(student, teacher, path, terms)
    assert len(model.adapters) == adapters
    model.prepare(CLASSES)
    losses = model.loss(*make_batch(model, size=128))
    total(losses).backward()
    for adapter in model.adapters.values():
        assert adapter.weight.grad.abs().sum() > 0
    assert not [k for k in model.state_dict() if 'adapter' in k]
    if adapters:
        weights = next(iter(model.adapters.values())).weights()
        next(iter(model.adapters.values())).load_weights({k: v + 1 for k, v in weights.items()})
        changed = next(iter(model.adapters.values())).weights()
        assert torch.allclose(changed['bias'], weights['bias'] + 1)


def test_anchor_heads_are_compared_class_by_class(tmp_path):
    path = save_teacher(retina(2), tmp_path / 'teacher.pth', CLASSES[1:])
    model = build(retina(), retina(2), path, [dict(source='bbox_head.cls', loss=KL)])
    model.prepare(CLASSES)
    inputs, samples = make_batch(model, size=128)
    value = model.loss(inputs, samples)['loss_distill_bbox_head_cls']
    terms, count = 0, 0
    with torch.no_grad():
        pairs = [
            m.bbox_head(m.extract_feat(inputs))[0] for m in (model.student, model.teacher.model)
        ]
    for ours, theirs in zip(*pairs):
        anchors = ours.shape[1] // 3
        for anchor in range(anchors):
            first = ours[:, anchor * 3 + 1 : anchor * 3 + 3]
            second = theirs[:, anchor * 2 : anchor * 2 + 2]
            t, s = (second / 2).sigmoid(), (first / 2).sigmoid()
            kl = t * (t / s).log() + (1 - t) * ((1 - t) / (1 - s)).log()
            terms += 4 * kl.sum()
            count += len(first) * first[0, 0].numel()
    torch.testing.assert_close(value, terms / count, rtol=1e-3, atol=1e-6)


def test_teachers_own_normalisation(tmp_path):
    path = save_teacher(retina(), tmp_path / 'teacher.pth', CLASSES)
    model = build(yolo(), retina(), path, [dict(source='neck[0]', loss=CWD)])
    data = demo_mm_inputs(2, [(3, 64, 40), (3, 50, 64)])
    ours = model.data_preprocessor(copy.deepcopy(data), True)
    theirs = model.teacher.model.data_preprocessor(copy.deepcopy(data), True)
    found = model.teacher.prepare_inputs(
        ours['inputs'], ours['data_samples'], model.data_preprocessor
    )
    torch.testing.assert_close(found, theirs['inputs'], rtol=1e-4, atol=1e-4)


def test_starting_from_the_teacher(checkpoint):
    model = build(yolo(), yolo(2), checkpoint, start_from_teacher=True)
    model.class_map = {CLASSES[1]: CLASSES[2]}
    model.prepare(CLASSES)
    fresh = {k: v.clone() for k, v in model.state_dict().items()}
    report = model.start()
    state, teacher = model.state_dict(), model.teacher.state
    last = 'bbox_head.head_module.cls_convs.0.2.bias'
    assert report.by_class == [
        f'bbox_head.head_module.cls_convs.{i}.2.{p}' for i in range(3) for p in ('weight', 'bias')
    ]
    assert not report.kept
    assert state[last][0] == teacher[last][0]
    assert state[last][1] == fresh[last][1]
    assert state[last][2] == teacher[last][1]
    key = 'backbone.stage1.0.conv.weight'
    assert torch.equal(state[key], teacher[key])


def test_pseudo_labels(checkpoint):
    model = build(yolo(), yolo(2), checkpoint, pseudo_labels=dict(score_thr=0.0, iou_thr=1.0))
    model.teacher.model.bbox_head.test_cfg.score_thr = 0.0
    model.prepare(CLASSES)
    inputs, samples = make_batch(model)
    seen = []
    stock = model.student.loss
    model.student.loss = lambda x, s: seen.append(s) or stock(x, s)
    model.loss(inputs, samples)
    for before, after in zip(samples, seen[0]):
        number = len(before.gt_instances)
        assert len(after.gt_instances) > number
        assert torch.equal(after.gt_instances.labels[:number], before.gt_instances.labels)
        assert set(after.gt_instances.labels[number:].tolist()) <= {0, 1}


def run_config(root, work_dir, checkpoint, student, terms, classes=CLASSES, **kwargs):
    cfg = Config.fromfile(config_path('yolov8/yolov8_n_shapes.py'))
    cfg.work_dir = str(work_dir)
    cfg.experiment_name = f'{work_dir.parent.name}-{work_dir.name}'
    cfg.visualizer = dict(
        type='DetLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')], name=str(work_dir)
    )
    cfg.model = dict(
        type='DistillationDetector',
        student=student,
        teacher=yolo(2),
        teacher_checkpoint=checkpoint,
        distillers=terms,
        **kwargs,
    )
    cfg.custom_hooks = [*cfg.custom_hooks, dict(type='DistillationHook')]
    cfg.train_cfg.update(max_epochs=2, val_interval=2)
    for split in ('train', 'val'):
        cfg[f'{split}_dataloader'].batch_size = 4
        cfg[f'{split}_dataloader'].dataset.update(
            data_root=f'{root}/', metainfo=dict(classes=classes)
        )
    cfg.val_evaluator.ann_file = f'{root}/annotations/instances_val.json'
    cfg.test_dataloader = cfg.test_evaluator = cfg.test_cfg = None
    cfg.default_hooks.logger.interval = 1
    return cfg


def test_runner_trains_resumes_and_leaves_a_plain_checkpoint(
    tiny_shapes, tmp_path, tmp_path_factory
):
    teacher = yolo(2, widen=0.375)
    path = save_teacher(teacher, tmp_path / 'teacher.pth', CLASSES[:2])
    terms = [dict(source='neck', loss=CWD), dict(source='bbox_head.cls', loss=KL)]

    def config(name):
        cfg = run_config(tiny_shapes, tmp_path / name, path, yolo(), terms)
        cfg.model.teacher = teacher
        return cfg

    runner = Runner.from_cfg(config('whole'))
    runner.train()
    (log,) = (tmp_path / 'whole').glob('*/vis_data/scalars.json')
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    rows = [row for row in rows if 'loss' in row]
    assert all(
        row['loss_distill_neck'] > 0 and row['loss_distill_bbox_head_cls'] > 0 for row in rows
    )
    saved = torch.load(tmp_path / 'whole/epoch_2.pth', map_location='cpu', weights_only=False)
    plain = MODELS.build(yolo())
    plain.load_state_dict(saved['state_dict'], strict=True)
    assert len(saved['distillation_adapters']) == 3
    assert set(saved['ema_state_dict']) - {'steps'} == {f'module.{k}' for k in plain.state_dict()}

    cfg = config('resumed')
    cfg.resume, cfg.load_from = True, str(tmp_path / 'whole/epoch_1.pth')
    resumed = Runner.from_cfg(cfg)
    resumed.train()
    for name, adapter in resumed.model.adapters.items():
        torch.testing.assert_close(
            adapter.weights(), runner.model.adapters[name].weights(), rtol=1e-4, atol=1e-5
        )


def test_testing_needs_no_teacher(checkpoint, tmp_path):
    missing = str(tmp_path / 'gone.py')
    model = build(yolo(), missing, 'gone.pth', [dict(source='neck', loss=CWD)])
    inputs, samples = make_batch(model)
    model.eval()
    with torch.no_grad():
        assert len(model.predict(inputs, samples)) == 2
    with pytest.raises(FileNotFoundError, match='set model.teacher to its path'):
        model.prepare(CLASSES)


@pytest.mark.parametrize(
    ('terms', 'error', 'text'),
    [
        ([dict(source='neckk', loss=CWD)], ValueError, "student has no module 'neckk'"),
        ([dict(source='neck')], ValueError, 'needs source and loss'),
        ([dict(source='neck', loss=CWD, wait=1)], ValueError, 'needs source and loss'),
        ([dict(source='neck[7]', loss=CWD)], ValueError, 'asks for item 7'),
        ([], ValueError, 'nothing to learn from the teacher'),
        (
            [dict(source='neck', teacher_source='backbone.stage1', loss=CWD)],
            ValueError,
            'gives 3 maps and the',
        ),
        (
            [dict(source='data_preprocessor', loss=CWD)],
            RuntimeError,
            'was not called in the forward pass',
        ),
    ],
)
def test_wrong_terms_are_refused(terms, error, text, checkpoint):
    with pytest.raises(error, match=text):
        build(yolo(), yolo(2), checkpoint, terms)


def test_maps_of_other_strides_are_refused_or_resized(checkpoint):
    term = dict(source='backbone.stage2', teacher_source='backbone.stage3', loss=CWD)
    model = build(yolo(), yolo(2), checkpoint, [term])
    model.prepare(CLASSES)
    batch = make_batch(model)
    with pytest.raises(ValueError, match="set match_size='resize'"):
        model.loss(*batch)
    model = build(yolo(), yolo(2), checkpoint, [dict(term, match_size='resize')])
    model.prepare(CLASSES)
    assert model.loss(*batch)['loss_distill_backbone_stage2'] > 0


def test_a_term_that_stays_zero_is_refused(checkpoint):
    term = dict(source='neck', loss=CWD, weight=0.0)
    model = build(yolo(), yolo(2), checkpoint, [term], zero_patience=2)
    model.prepare(CLASSES)
    batch = make_batch(model)
    model.loss(*batch)
    with pytest.raises(RuntimeError, match='loss_distill_neck was 0 in each of the first 2'):
        model.loss(*batch)


def test_the_hook_is_needed(checkpoint):
    model = build(yolo(), yolo(2), checkpoint, [dict(source='neck', loss=CWD)])
    model.has_hook = False
    with pytest.raises(RuntimeError, match="custom_hooks=\\[dict\\(type='DistillationHook'\\)\\]"):
        model.loss(*make_batch(model))


def test_missing_checkpoint_and_classes(checkpoint, tmp_path):
    terms = [dict(source='bbox_head.cls', loss=KL)]
    with pytest.raises(FileNotFoundError, match="'gone.pth' does not exist"):
        build(yolo(), yolo(2), 'gone.pth', terms).prepare(CLASSES)
    with pytest.raises(ValueError, match='model.student_classes'):
        build(yolo(), yolo(2), checkpoint, terms).prepare(None)
    with pytest.raises(ValueError, match='does not fit its config'):
        build(yolo(), yolo(3), checkpoint, terms).prepare(CLASSES)


def test_classes_by_name():
    assert map_classes(('cat', 'dog'), ('bird', 'dog', 'cat')) == ([0, 1], [2, 1])
    assert map_classes(('cat', 'dog'), ('dog',), {'cat': None}) == ([1], [0])
    assert map_classes(('cat',), ('bird', 'kitty'), {'cat': 'kitty'}) == ([0], [1])
    with pytest.raises(ValueError, match="no class 'cat'"):
        map_classes(('cat',), ('dog',))
    with pytest.raises(ValueError, match='no classes of the teacher'):
        map_classes(('cat',), ('cat',), {'cow': 'cat'})
    with pytest.raises(ValueError, match='the same class of the student'):
        map_classes(('cat', 'dog'), ('dog', 'x'), {'cat': 'dog'})
