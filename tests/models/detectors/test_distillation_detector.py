"""The wrapper: what its state is, what its terms are, what it refuses; tiny real training runs."""

import copy
import json
import logging
from types import SimpleNamespace

import pytest
import torch
from _operator_calls import OperatorCalls
from head_toys import CLASSES, HEADS, gfl, retina, save_teacher, yolo
from mmcv.cnn import is_norm
from mmdet.datasets import LVISV1Dataset
from mmdet.registry import MODELS
from mmdet.structures.bbox import bbox_overlaps
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.runner import Runner

from mmdet_contrast import config_path
from mmdet_contrast.apis.addition_config import distillation_terms
from mmdet_contrast.engine.hooks import DistillationHook
from mmdet_contrast.models.distill import decode_boxes, join_levels, object_weights
from mmdet_contrast.utils.config import LaunchError

CWD = dict(type='ChannelWiseDivergence', tau=2.0)
KL = dict(type='LogitsKLDivergence', tau=2.0)
MAPS = [dict(source='bbox_head.cls', loss=KL)]


CLOSE = dict(rtol=1e-4, atol=1e-6)


def build(student, teacher, checkpoint, distillers=(), prepare=CLASSES, **kwargs):
    """Build the wrapper, and prepare it for training as its hook does, unless told not to."""
    torch.manual_seed(0)
    model = MODELS.build(
        dict(
            type='DistillationDetector',
            student=student,
            teacher=teacher,
            teacher_checkpoint=checkpoint,
            distillers=list(distillers),
            **kwargs,
        )
    )
    model.init_weights()
    if prepare:
        model.prepare(prepare)
    return model.train()


def make_batch(model, num_classes=3, size=64):
    data = demo_mm_inputs(2, [(3, size, size)] * 2, num_classes=num_classes)
    data = model.data_preprocessor(data, True)
    return data['inputs'], data['data_samples']


def total(losses):
    return sum(v if torch.is_tensor(v) else sum(v) for v in losses.values())


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


def test_a_loss_with_weights_of_its_own_resumes(checkpoint):
    model = build(yolo(), yolo(2), checkpoint, [dict(source='neck[0]', loss=CWD)])
    model.distillers[0].criterion.adapter = torch.nn.Linear(2, 2)
    state = {key: value + 1 for key, value in model.state_dict().items()}
    model.load_state_dict(state, strict=True)
    own = 'distillers.0.criterion.adapter.weight'
    assert torch.equal(model.distillers[0].criterion.adapter.weight, state[own])


def test_the_teacher_is_nowhere_to_be_found(checkpoint):
    model = build(yolo(), yolo(2), checkpoint, [dict(source='bbox_head.cls', loss=KL)])
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
        # the teacher's second class is the student's first
        teacher_classes=(CLASSES[2], CLASSES[0]),
    )
    assert model.shared == [2, 0]
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
    # stage2 is the backbone's first output
    expected = [0.5 * cwd(first[0], second[0])]
    expected.append(torch.stack([cwd(a, b) for a, b in zip(*pyramids)]).mean())
    (ours, our_boxes), (theirs, their_boxes) = (
        [torch.cat([m.flatten(2) for m in maps], dim=2) for maps in head] for head in heads
    )
    expected.append(3 * kl(ours[:, [2, 0]], theirs))
    scores = theirs.amax(1).sigmoid()
    weights = (scores - scores.mean(dim=1, keepdim=True)).clamp(min=0)
    boxes = MODELS.build(dict(type='BoxDistributionKLLoss'))
    objects = weights.sum().clamp(min=1)
    expected.append(boxes(our_boxes, their_boxes, weights, avg_factor=objects))
    for name, value in zip(names, expected):
        # YOLOv8's own losses are multiplied by the batch, too
        torch.testing.assert_close(losses[f'loss_distill_{name}'], 2 * value, **CLOSE)


def test_terms_launch_few_kernels_and_wait_for_none(checkpoint):
    """On a GPU a step of a small detector takes as long as its launches do."""
    kernels, waits = [], []
    for used in (False, True):
        model = build(yolo(), yolo(2), checkpoint, annotated_classes=CLASSES[2:])
        if used:
            terms = distillation_terms(model.student.bbox_head)
            model = build(yolo(), yolo(2), checkpoint, terms, annotated_classes=CLASSES[2:])
        inputs, samples = make_batch(model)
        with OperatorCalls() as calls:
            if not used:
                with torch.no_grad():
                    network = model.teacher.model
                    network.bbox_head(network.extract_feat(inputs))
            total(model.loss(inputs, samples)).backward()
        kernels.append(sum(calls.kernels.values()))
        waits.append(calls.waits)
    assert 0 < kernels[1] - kernels[0] <= 150, kernels
    assert waits[0] == waits[1]


def test_teacher_stays_and_the_student_learns_from_every_term(checkpoint):
    model = build(
        yolo(),
        yolo(2),
        checkpoint,
        [dict(source='neck[0]', loss=CWD), dict(source='bbox_head.cls', loss=KL)],
    )
    before = {k: v.clone() for k, v in model.teacher.model.state_dict().items()}
    inputs, samples = make_batch(model)
    for key in ('loss_distill_neck_0', 'loss_distill_bbox_head_cls'):
        model.zero_grad()
        model.loss(inputs, samples)[key].backward()
        assert model.student.backbone.stem.conv.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in model.teacher.model.parameters())
    after = model.teacher.model.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items())


def test_features_of_detectors_with_other_heads_are_compared(tmp_path):
    path = save_teacher(gfl(), tmp_path / 'teacher.pth', CLASSES)
    model = build(retina(), gfl(), path, [dict(source='neck', loss=CWD)])
    model.loss(*make_batch(model, size=128))['loss_distill_neck'].backward()
    assert model.student.backbone.conv1.weight.grad.abs().sum() > 0


def test_anchor_heads_are_compared_class_by_class(tmp_path):
    path = save_teacher(retina(2), tmp_path / 'teacher.pth', CLASSES[1:])
    model = build(retina(), retina(2), path, [dict(source='bbox_head.cls', loss=KL)])
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
    names = (CLASSES[0], CLASSES[2])
    model = build(yolo(), yolo(2), checkpoint, start_from_teacher=True, teacher_classes=names)
    fresh = {k: v.clone() for k, v in model.state_dict().items()}
    report = model.start()
    state, teacher = model.state_dict(), model.teacher.model.state_dict()
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


def gradients_of_classes(model, inputs, samples):
    """Those of the losses with respect to the class maps of the student's head."""
    maps = []
    head = model.student.bbox_head
    handle = head.register_forward_hook(lambda module, inputs, outputs: maps.extend(outputs[0]))
    losses = model.loss(inputs, samples)
    handle.remove()
    return torch.autograd.grad(total(losses), maps)


@pytest.mark.parametrize('head', ['yolo', 'retina', 'gfl', 'fcos', 'atss', 'rtmdet'])
def test_what_is_not_annotated_is_not_learnt_as_background(head, tmp_path):
    """The gradient into the class maps, where the head's own loss is all that there is."""
    cfg = HEADS[head]()
    path = save_teacher(cfg, tmp_path / 'teacher.pth', CLASSES)
    gradients = []
    for annotated in (None, CLASSES[1:]):
        model = build(cfg, cfg, path, annotated_classes=annotated)
        inputs, samples = make_batch(model, size=128)
        for sample in samples:
            sample.set_metainfo(dict(img_path='picture.jpg'))
            sample.gt_instances.labels[:] = 1
        # one object of a class that is not annotated: it is learnt all the same
        samples[0].gt_instances.labels[0] = 0
        gradients.append(gradients_of_classes(model, inputs, samples))
    for plain, spared in zip(*gradients):
        plain, spared = (g.reshape(2, -1, 3, *g.shape[2:]) for g in (plain, spared))
        torch.testing.assert_close(spared[:, :, 1:], plain[:, :, 1:])
        torch.testing.assert_close(spared[:, :, 0], plain[:, :, 0].clamp(max=0))
    first = [g.reshape(2, -1, 3, g[0, 0].numel())[:, :, 0].flatten(1) for g in gradients[1]]
    first = torch.cat(first, dim=1)
    assert first[0].min() < 0 and (first[1] == 0).all()


def test_pictures_that_annotate_other_classes(checkpoint):
    model = build(yolo(), yolo(2), checkpoint, prepare=None, annotated_classes=CLASSES[2:])
    model.prepare(CLASSES, {'old.jpg': [0, 1]})
    inputs, samples = make_batch(model)
    for sample, path in zip(samples, ('new.jpg', 'old.jpg')):
        sample.set_metainfo(dict(img_path=path))
        sample.gt_instances = sample.gt_instances[:0]
    gradients = gradients_of_classes(model, inputs, samples)
    learnt = sum((g > 0).flatten(2).any(dim=2).long() for g in gradients)
    assert learnt.bool().tolist() == [[False, False, True], [True, True, False]]
    unnamed = [type(sample)(gt_instances=sample.gt_instances) for sample in samples]
    for sample in unnamed:
        sample.set_metainfo(dict(img_shape=(64, 64)))
    with pytest.raises(LaunchError, match="add 'img_path' to meta_keys"):
        model.loss(inputs, unnamed)
    with pytest.raises(ValueError, match="annotated_classes has \\['disc'\\]"):
        build(yolo(), yolo(2), checkpoint, annotated_classes=('disc',))


def test_pictures_that_annotate_different_classes_are_not_mixed(tiny_shapes, tmp_path, checkpoint):
    file = tiny_shapes / 'annotations/instances_train.json'
    content = json.loads(file.read_text())
    ids = [category['id'] for category in content['categories']]

    def hook(entries, steps=(), name='ann.json'):
        for image, annotated in zip(content['images'], entries):
            image['annotated_category_ids'] = annotated
        (tmp_path / name).write_text(json.dumps(content))
        cfg = run_config(tiny_shapes, tmp_path / 'work', checkpoint, yolo(), MAPS)
        part = cfg.train_dataloader.dataset
        part.pipeline = [*part.pipeline[:2], *steps, *part.pipeline[2:]]
        parts = [dict(part, ann_file=str(tmp_path / each)) for each in {name, 'ann.json'}]
        cfg.train_dataloader.dataset = dict(type='ConcatDataset', datasets=parts)
        DistillationHook().before_train(Runner.from_cfg(cfg))

    size = len(content['images'])
    mosaic = dict(type='CachedMosaic', img_scale=(64, 64), prob=1.0)
    mosaic = dict(type='RandomApply', transforms=[mosaic])
    hook([ids[:1]] * size, [mosaic])
    hook([ids[1:]] + [ids[:1]] * (size - 1))
    with pytest.raises(LaunchError, match='CachedMosaic of the training pipeline mixes them'):
        hook([ids[1:]] + [ids[:1]] * (size - 1), [mosaic])
    with pytest.raises(LaunchError, match="'.*jpg' is in two annotation files, whose annotated_"):
        hook([ids] * size, name='other.json')


def test_pictures_of_lvis_have_a_url_alone(tmp_path, checkpoint):
    file = tmp_path / 'lvis.json'
    file.write_text(json.dumps(dict(images=[dict(id=1, coco_url='http://coco/train2017/1.jpg')])))
    # without the lvis package no such data set can be built
    dataset = object.__new__(LVISV1Dataset)
    given = dict(ann_file=str(file), backend_args=None, data_prefix=dict(img=''), cat2label={})
    vars(dataset).update(given, _metainfo=dict(classes=CLASSES), pipeline=[])
    model = build(yolo(), yolo(2), checkpoint, MAPS, prepare=None)
    loader, logger = SimpleNamespace(dataset=dataset), logging.getLogger()
    DistillationHook().before_train(
        SimpleNamespace(model=model, train_dataloader=loader, logger=logger, iter=0)
    )
    assert model.student_classes == CLASSES


@pytest.mark.parametrize('head', ['retina', 'fcos', 'atss', 'rtmdet', 'small rtmdet'])
def test_boxes_and_centerness_of_a_head(head, tmp_path):
    """A slow loop over the locations, with the boxes that the head itself predicts."""
    cfg = HEADS[head.split()[-1]]()
    if head == 'small rtmdet':
        # distances of any sign, hence boxes that end before they begin
        cfg.bbox_head.exp_on_reg = False
    path = save_teacher(cfg, tmp_path / 'teacher.pth', CLASSES)
    terms = [dict(source='bbox_head.boxes', loss=dict(type='GIoULoss'))]
    if head in ('fcos', 'atss'):
        terms.append(dict(source='bbox_head.centerness', loss=dict(type='LogitsKLDivergence')))
    model = build(cfg, cfg, path, terms)
    inputs, samples = make_batch(model, size=64)
    losses = model.loss(inputs, samples)

    outputs = []
    with torch.no_grad():
        for network in (model.student, model.teacher.model):
            outputs.append(network.bbox_head(network.extract_feat(inputs)))
        ours, theirs = (
            decode_boxes(network.bbox_head, maps[1]).flatten(0, 2)
            for network, maps in zip((model.student, model.teacher.model), outputs)
        )
    weight = object_weights(join_levels(outputs[1][0], 3)).transpose(1, 2).flatten()
    divisor = max(weight.sum().item(), 1)
    expected, skipped = 0, 0
    for (a, b, c, d), target, share in zip(ours.tolist(), theirs, weight):
        if target[2] <= target[0] or target[3] <= target[1]:
            skipped += 1
            continue
        box = torch.tensor([a, b, max(a, c), max(b, d)])
        giou = bbox_overlaps(box[None], target[None], mode='giou', is_aligned=True)[0]
        expected = expected + (1 - giou) * share / divisor
    # FCOS cuts its distances off at 0
    assert (skipped > 0) is (head in ('fcos', 'small rtmdet'))
    torch.testing.assert_close(losses['loss_distill_bbox_head_boxes'], expected, **CLOSE)
    if len(terms) == 2:
        # one anchor
        s, t = (join_levels(each[2], 1).flatten().sigmoid() for each in outputs)
        kl = t * (t / s).log() + (1 - t) * ((1 - t) / (1 - s)).log()
        expected = (kl * weight).sum() / divisor
        torch.testing.assert_close(losses['loss_distill_bbox_head_centerness'], expected, **CLOSE)
    total({k: v for k, v in losses.items() if 'distill' in k}).backward()

    model = build(cfg, cfg, path, terms, start_from_teacher=True, norm_eval=True)
    model.start()
    model.train()
    terms = [v for k, v in model.loss(inputs, samples).items() if 'distill' in k]
    torch.testing.assert_close(torch.stack(terms), torch.zeros(len(terms)), rtol=0, atol=1e-5)


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


def test_runner_trains_resumes_and_leaves_a_plain_checkpoint(tiny_shapes, tmp_path):
    path = save_teacher(yolo(2), tmp_path / 'teacher.pth', CLASSES[:2])
    terms = [dict(source='neck', loss=CWD), dict(source='bbox_head.cls', loss=KL)]

    def config(name):
        cfg = run_config(tiny_shapes, tmp_path / name, path, yolo(), terms)
        # checkpoints hold no random states
        dataset = cfg.train_dataloader.dataset
        dataset.pipeline = [step for step in dataset.pipeline if step.type != 'RandomFlip']
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
    assert set(saved['ema_state_dict']) - {'steps'} == {f'module.{k}' for k in plain.state_dict()}

    cfg = config('resumed')
    cfg.resume, cfg.load_from = True, str(tmp_path / 'whole/epoch_1.pth')
    resumed = Runner.from_cfg(cfg)
    resumed.train()
    expected = runner.model.state_dict()
    for name, value in resumed.model.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-4)


def test_testing_builds_no_teacher(tmp_path, monkeypatch):
    monkeypatch.setattr(MODELS, 'build', spy := Spy(MODELS.build))
    distillers = [dict(source='neck', loss=CWD)]
    model = build(yolo(), str(tmp_path / 'gone.py'), 'gone.pth', distillers, prepare=None)
    assert model.teacher.model is None and spy.kinds.count('YOLOv8Detector') == 1
    inputs, samples = make_batch(model)
    model.eval()
    with torch.no_grad():
        assert len(model.predict(inputs, samples)) == 2
        assert len(model(inputs, samples, mode='tensor')) == 2
    with pytest.raises(FileNotFoundError, match='gone.py'):
        model.prepare(CLASSES)


class Spy:
    """Remembers what it builds."""

    def __init__(self, stock):
        self.stock, self.kinds = stock, []

    def __call__(self, cfg, *args, **kwargs):
        self.kinds.append(cfg['type'])
        return self.stock(cfg, *args, **kwargs)


@pytest.mark.parametrize(
    ('source', 'text'),
    [
        ('neckk', "no module 'neckk'.*did you mean neck"),
        (
            'neck',
            r"'neck' of the student gives maps .*\(32, 8, 8\).* of the teacher of .*\(64, 8, 8\)",
        ),
    ],
)
def test_maps_that_do_not_fit_are_refused(source, text, tmp_path):
    wide = yolo(2, widen=0.25)
    path = save_teacher(wide, tmp_path / 'teacher.pth', CLASSES[:2])
    model = build(yolo(), wide, path, [dict(source=source, loss=CWD)])
    with pytest.raises(ValueError, match=text):
        model.loss(*make_batch(model))


def test_two_terms_of_one_source(checkpoint):
    terms = [dict(source='neck', loss=dict(CWD, tau=tau)) for tau in (1.0, 2.0)]
    with pytest.raises(ValueError, match='give each its own name'):
        build(yolo(), yolo(2), checkpoint, terms)


def test_one_class_that_competes_with_none(tmp_path):
    path = save_teacher(yolo(1), tmp_path / 'one.pth', CLASSES[:1])
    term = dict(source='bbox_head.cls', loss=dict(KL, mode='softmax'))
    with pytest.raises(LaunchError, match="bbox_head.cls .*set mode='bernoulli'"):
        build(yolo(), yolo(1), path, [term])


def softmax(num_classes=3):
    cfg = retina(num_classes)
    cfg.bbox_head.loss_cls = dict(type='CrossEntropyLoss', use_sigmoid=False)
    return cfg


def test_softmax_heads_are_refused_where_sigmoid_scores_are_needed(tmp_path):
    plain = save_teacher(retina(2), tmp_path / 'plain.pth', CLASSES[:2])
    path = save_teacher(softmax(2), tmp_path / 'softmax.pth', CLASSES[:2])
    boxes = [dict(source='bbox_head.boxes', loss=dict(type='GIoULoss'))]
    with pytest.raises(LaunchError, match='RetinaHead of the teacher .*bbox_head.boxes'):
        build(retina(), softmax(2), path, boxes)
    with pytest.raises(LaunchError, match='RetinaHead of the student .*annotated_classes'):
        build(softmax(), retina(2), plain, annotated_classes=CLASSES[2:])
    terms = [dict(source='bbox_head.cls', loss=dict(KL, mode='softmax'))]
    model = build(softmax(), softmax(2), path, terms)
    inputs, samples = make_batch(model)
    value = model.loss(inputs, samples)['loss_distill_bbox_head_cls']
    with torch.no_grad():
        maps = [
            torch.cat([m.unflatten(1, (-1, channels))[:, :, :2].flatten(3) for m in levels], 3)
            for network, channels in ((model.student, 4), (model.teacher.model, 3))
            for levels in [network.bbox_head(network.extract_feat(inputs))[0]]
        ]
    # without the background
    maps = [joined.flatten(0, 1) for joined in maps]
    torch.testing.assert_close(value, model.distillers[0].criterion(*maps), **CLOSE)


def test_a_teacher_that_is_not_loaded_is_refused(checkpoint):
    terms = [dict(source='bbox_head.cls', loss=KL)]
    model = build(yolo(), yolo(2), checkpoint, terms, prepare=None)
    with pytest.raises(RuntimeError, match="custom_hooks=\\[dict\\(type='DistillationHook'\\)\\]"):
        model.loss(*make_batch(model))
    with pytest.raises(ValueError, match='model.student_classes'):
        model.prepare(None)
    for given, error, text in (
        (None, ValueError, 'set model.teacher_checkpoint'),
        ('gone.pth', FileNotFoundError, 'gone.pth'),
        (checkpoint, ValueError, 'size mismatch'),
    ):
        with pytest.raises(error, match=text):
            build(yolo(), yolo(3), given, terms)
    with pytest.raises(ValueError, match='head has 2 classes'):
        build(yolo(), yolo(2), checkpoint, terms, teacher_classes=CLASSES)


def test_the_data_preprocessor_beside_the_model():
    """MMEngine hands the one that stands beside ``model`` in a config to the model."""
    student, teacher = yolo(), yolo(2)
    beside = dict(student.pop('data_preprocessor'), std=[7.0, 8.0, 9.0])
    teacher.pop('data_preprocessor')
    model = build(student, teacher, None, MAPS, prepare=None, data_preprocessor=beside)
    for preprocessor in (model.data_preprocessor, model.teacher.build().data_preprocessor):
        assert preprocessor.std.flatten().tolist() == [7, 8, 9]


def test_the_teachers_padding_leaves_the_students_images_alone():
    student, teacher = yolo(), yolo(2)
    student.data_preprocessor = dict(type='DetDataPreprocessor', pad_value=0)
    teacher.data_preprocessor = dict(type='DetDataPreprocessor', pad_value=9)
    model = build(student, teacher, None, MAPS, prepare=None)
    model.teacher.build()
    inputs, samples = torch.ones(1, 3, 4, 4), [SimpleNamespace(img_shape=(4, 3))]
    theirs = model.teacher.prepare_inputs(inputs, samples, model.data_preprocessor)
    assert (inputs == 1).all()
    assert (theirs[..., 3] == 9).all() and (theirs[..., :3] == 1).all()


def test_many_classes_widen_the_branch_unless_it_is_told_not_to(tmp_path):
    """The class branch of YOLOv8-n has as many channels as classes from 64 on."""
    names = tuple(f'class {i}' for i in range(90))
    teacher, student = (
        Config.fromfile(config_path('yolov8/yolov8_n_coco.py')).model for _ in range(2)
    )
    student.bbox_head.num_classes = 90
    path = save_teacher(teacher, tmp_path / 'teacher.pth', names[:80])
    model = build(student, teacher, path, prepare=names, start_from_teacher=True)
    assert 'have another shape: there the student knows nothing yet' in str(model.start())
    student.bbox_head.head_module = dict(cls_channels=80)
    model = build(student, teacher, path, prepare=names, start_from_teacher=True)
    report = model.start()
    assert not report.unlike and len(report.by_class) == 6
    row = 'bbox_head.head_module.cls_convs.0.2.weight'
    assert torch.equal(model.state_dict()[row][:80], model.teacher.model.state_dict()[row])


def test_a_contrastive_student_learns_from_the_teacher(tmp_path):
    """Its head sees the originals alone; the teacher runs on their views, too."""
    path = save_teacher(gfl(), tmp_path / 'teacher.pth', CLASSES)
    student = Config.fromfile(config_path('gfl_contrast_shapes.py')).model
    terms = [
        dict(source='bbox_head.cls', loss=KL),
        dict(source='bbox_head.reg', loss=dict(type='BoxDistributionKLLoss', reg_max=17)),
    ]
    model = build(student, gfl(), path, terms, annotated_classes=CLASSES[1:])
    model.prepare(CLASSES, {'a.jpg': [0]})
    inputs, samples = make_batch(model)
    views = copy.deepcopy(samples)
    for view, group in enumerate((samples, views)):
        for sample in group:
            # views are pictures of their own
            sample.set_metainfo(dict(view=view) if view else dict(view=view, img_path='a.jpg'))
            valid = torch.ones(len(sample.gt_instances), dtype=torch.bool)
            sample.gt_instances.view_valid = valid
    losses = model.loss(torch.cat((inputs, inputs)), [*samples, *views])
    assert losses['loss_distill_bbox_head_cls'] > 0 and losses['loss_distill_bbox_head_reg'] > 0


def test_a_start_that_a_loaded_checkpoint_replaces_is_named(checkpoint, caplog):
    model = build(yolo(), yolo(2), checkpoint, prepare=None, start_from_teacher=True)
    data = SimpleNamespace(dataset=SimpleNamespace(metainfo=dict(classes=CLASSES)))
    logger = logging.getLogger('distillation')
    runner = SimpleNamespace(model=model, train_dataloader=data, iter=0, logger=logger)
    hook = DistillationHook()
    hook.after_load_checkpoint(runner, {})
    before = {key: value.clone() for key, value in model.state_dict().items()}
    hook.before_train(runner)
    assert 'set load_from=None to start from the teacher' in caplog.text
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in before.items())
    # a run that goes on has started long ago
    runner.iter = 5
    hook.before_train(runner)
    assert len(caplog.records) == 1


# What batch normalisation does in a student that starts from its teacher.
STARTED = [dict(source='bbox_head.cls', loss=KL, weight=100.0)]


def started(checkpoint, norm_eval):
    options = dict(start_from_teacher=True, norm_eval=norm_eval)
    model = build(yolo(), yolo(2), checkpoint, STARTED, **options)
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
    norms = [m for m in model.student.modules() if is_norm(m)]
    assert norms and not any(m.training for m in norms)
    assert all(m.weight.grad is not None for m in norms)
    assert model.student.backbone.stem.training and model.student.training
