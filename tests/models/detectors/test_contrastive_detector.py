import pytest
import torch
import torch.nn.functional as F
from mmcv.ops import SyncBatchNorm
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from torch.nn.modules.batchnorm import _BatchNorm

from mmdet_contrast import config_path
from mmdet_contrast.models.contrast import pool_regions
from mmdet_contrast.models.detectors import ContrastiveDetector, contrastive_detector

VARIANTS = ('canvas', 'nograd', 'canvas_nograd')


def load(name):
    init_default_scope('mmdet')
    return Config.fromfile(config_path(name))


def build(cfg):
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    return model


def detector(base='retina_contrast_shapes.py', **options):
    cfg = load(base)
    cfg.model.update(type='ContrastiveDetector', **options)
    return build(cfg)


def one_batch(model, counts=(3, 2, 4, 3), views=True, size=96, viewed=None):
    torch.manual_seed(3)
    data = demo_mm_inputs(
        len(counts),
        [[3, size, size]] * len(counts),
        num_classes=3,
        num_items=list(counts),
        use_box_type=True,
    )
    for i in (range(len(counts)) if viewed is None else viewed) if views else ():
        data['inputs'][i] = torch.stack((data['inputs'][i], data['inputs'][i].flip(0)))
    return model.data_preprocessor(data, training=True)


def losses_of(model, data):
    return model(data['inputs'], data['data_samples'], mode='loss')


def total_of(model, data):
    return model.parse_losses(losses_of(model, data))[0]


def statistics(model):
    return {k: v.clone() for k, v in model.state_dict().items() if 'running' in k or 'num_b' in k}


def is_equal(one, other):
    return all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize('variant', VARIANTS)
@pytest.mark.parametrize('counts', [(3, 2, 4, 3), (1,), (0,), (0, 4)])
def test_losses_and_gradients(variant, counts):
    model = build(load(f'retina_contrast_shapes_{variant}.py'))
    losses = losses_of(model, one_batch(model, counts))
    total, _ = model.parse_losses(losses)
    total.backward()
    assert torch.isfinite(total)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
    names = [f'loss_contrast_p{i}' for i in range(3, 8)]
    if sum(counts) > 1:
        assert all(losses[name] > 0 for name in names)
    if sum(counts) == 0:
        assert all(losses[name] == 0 for name in names)


def test_canvas_batch_and_detection_losses_of_the_originals_alone():
    model = build(load('retina_contrast_shapes_canvas.py')).eval()
    plain = build(load('retina_shapes.py')).eval()
    plain.load_state_dict(model.state_dict(), strict=False)
    data = one_batch(model)
    assert len(data['inputs']) == 5
    losses, alone = losses_of(model, data), losses_of(plain, one_batch(plain, views=False))
    for key in ('loss_cls', 'loss_bbox'):
        for a, b in zip(losses[key], alone[key]):
            torch.testing.assert_close(a, b)


def test_detection_losses_cannot_see_canvases():
    cfg = load('retina_contrast_shapes_canvas.py')
    cfg.model.bbox_head.train_views = 'both'
    model = build(cfg)
    with pytest.raises(RuntimeError, match="set train_views='originals'"):
        losses_of(model, one_batch(model))


@pytest.mark.parametrize('norm', ['joint', 'train', 'batch', 'eval'])
def test_with_gradient_it_is_the_stock_detector_where_norms_do_not_learn(norm):
    stock = build(load('retina_contrast_shapes.py')).eval()
    model = detector(view_norm=norm).eval()
    model.load_state_dict(stock.state_dict())
    data = one_batch(stock)
    ours, theirs = losses_of(model, data), losses_of(stock, data)
    assert ours.keys() == theirs.keys()
    totals = [m.parse_losses(x)[0] for m, x in ((model, ours), (stock, theirs))]
    torch.testing.assert_close(*totals)
    for total in totals:
        total.backward()
    for (name, a), b in zip(model.named_parameters(), stock.parameters()):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-6, msg=name)


def test_by_default_it_is_the_stock_detector_in_training_too():
    stock, model = build(load('retina_contrast_shapes.py')), detector()
    model.load_state_dict(stock.state_dict())
    data = one_batch(stock)
    assert torch.equal(total_of(model, data), total_of(stock, data))
    assert is_equal(statistics(model), statistics(stock))


@pytest.mark.parametrize('viewed', [None, (0, 3)])
@pytest.mark.parametrize('base', ['retina_contrast_shapes.py', 'retina_contrast_shapes_canvas.py'])
def test_without_gradient_the_views_side_has_none(base, viewed):
    model = detector(base, view_grad=False).eval()
    if viewed is not None:
        model.bbox_head.contrast.key_source = 'view_or_image'
    data = one_batch(model, viewed=viewed)
    has_view = [sample.has_view for sample in data['data_samples'][:4]]
    assert has_view == [viewed is None or i in viewed for i in range(4)]
    seen = []
    extract = model.extract_feat

    def record(inputs):
        feats = extract(inputs)
        seen.append((len(inputs), [f.requires_grad for f in feats]))
        return feats

    model.extract_feat = record
    total = total_of(model, data)
    views = len(data['inputs']) - 4
    assert seen == [(4, [True] * 5), (views, [False] * 5)]
    # the value is that with gradient
    twin = detector(base).eval()
    twin.load_state_dict(model.state_dict())
    twin.bbox_head.contrast.key_source = model.bbox_head.contrast.key_source
    torch.testing.assert_close(total, total_of(twin, data))
    # and the gradient is that of features of the views that are cut off
    total.backward()
    with torch.no_grad():
        fixed = twin.extract_feat(data['inputs'][4:])
    feats = tuple(torch.cat(x) for x in zip(twin.extract_feat(data['inputs'][:4]), fixed))
    twin.parse_losses(twin.bbox_head.loss(feats, data['data_samples']))[0].backward()
    for (name, a), b in zip(model.named_parameters(), twin.parameters()):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-6, msg=name)


def test_statistics_of_views():
    after = {}
    for norm in ('train', 'batch', 'eval'):
        model = detector(view_grad=False, view_norm=norm)
        before = statistics(model)
        total_of(model, one_batch(model))
        after[norm] = statistics(model)
        assert not is_equal(before, after[norm])
        norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
        assert norms and all(m.training and m.track_running_stats for m in norms)
    plain = build(load('retina_shapes.py'))
    plain.load_state_dict(detector().state_dict(), strict=False)
    total_of(plain, one_batch(plain, views=False))
    # what is used at test time comes from the originals alone
    assert is_equal(statistics(plain), after['batch'])
    assert is_equal(statistics(plain), after['eval'])
    assert not is_equal(statistics(plain), after['train'])


def test_norms_are_put_back_after_an_error():
    model = detector(view_grad=False)
    data = one_batch(model)
    extract, calls = model.extract_feat, []

    def fail_on_views(inputs):
        calls.append(len(inputs))
        if len(calls) == 2:
            raise MemoryError
        return extract(inputs)

    model.extract_feat = fail_on_views
    with pytest.raises(MemoryError):
        losses_of(model, data)
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    assert all(m.track_running_stats for m in norms)


def test_without_views_it_is_plain():
    cfg = load('retina_contrast_shapes_nograd.py')
    cfg.model.bbox_head.contrast.criterion.loss_weight = 0
    model, plain = build(cfg), build(load('retina_shapes.py'))
    plain.load_state_dict(model.state_dict(), strict=False)
    losses = [losses_of(m, one_batch(m, views=False)) for m in (model, plain)]
    for key in ('loss_cls', 'loss_bbox'):
        assert all(torch.equal(a, b) for a, b in zip(losses[0][key], losses[1][key]))


@pytest.mark.parametrize('options', [dict(view_grad=False), dict(view_norm='batch')])
def test_a_rank_without_views_does_not_keep_others_waiting(options, monkeypatch):
    model = detector('retina_contrast_shapes_canvas.py', **options)
    alone = total_of(model, one_batch(model, (0, 0)))
    model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)
    monkeypatch.setattr(contrastive_detector, 'get_world_size', lambda: 2)
    calls, backwards = [], []
    norm = model.backbone.bn1

    def record(_, __, output):
        calls.append(norm.track_running_stats)
        if output.requires_grad:
            output.register_hook(lambda grad: backwards.append(1))

    norm.register_forward_hook(record)
    total = total_of(model, one_batch(model, (0, 0)))
    assert calls == [True, False]
    torch.testing.assert_close(total, alone)
    total.backward()
    # with gradient, SyncBN waits on the way back, too
    assert len(backwards) == (1 if 'view_grad' in options else 2)


def test_autocast_keeps_the_gradients_of_the_originals():
    model = detector(view_grad=False)
    data = one_batch(model)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        total = total_of(model, data)
    total.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
    assert model.backbone.conv1.weight.grad.abs().sum() > 0


def test_checkpoint_loads_in_the_plain_config():
    model = detector(view_grad=False)
    assert list(model.state_dict()) == list(build(load('retina_contrast_shapes.py')).state_dict())


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(view_norm='frozen'), "view_norm='frozen', one of"),
        (dict(view_grad=False, view_norm='joint'), "set view_norm to one of .*'train'"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        detector(**options)


@pytest.mark.parametrize('norm', ['batch', 'eval'])
def test_a_pass_that_is_repeated_backwards_cannot_tell_the_views(norm):
    def first_losses(view_grad, norm_eval):
        cfg = load('retina_contrast_shapes.py')
        cfg.model.update(type='ContrastiveDetector', view_norm=norm, view_grad=view_grad)
        cfg.model.backbone.update(with_cp=True, norm_eval=norm_eval)
        model = build(cfg).train()
        return losses_of(model, one_batch(model))

    with pytest.raises(ValueError, match='backbone.with_cp=True: that pass is repeated'):
        first_losses(view_grad=True, norm_eval=False)
    # nothing is repeated, or no norm learns
    first_losses(view_grad=False, norm_eval=False)
    first_losses(view_grad=True, norm_eval=True)


@pytest.mark.parametrize('norm', ['batch', 'eval'])
def test_a_synchronised_norm_that_cannot_tell_the_views_is_refused(norm):
    cfg = load('retina_contrast_shapes.py')
    cfg.model.update(type='ContrastiveDetector', view_norm=norm)
    model = build(cfg).train()
    batch = one_batch(model)
    # the real one is built in a process group alone
    layer = SyncBatchNorm.__new__(SyncBatchNorm)
    torch.nn.Module.__init__(layer)
    model.backbone.extra = layer
    with pytest.raises(ValueError, match=f"view_norm='{norm}' and mmcv's SyncBatchNorm"):
        losses_of(model, batch)
    # what does not learn treats all alike
    layer.eval()
    losses_of(model, batch)


def test_other_ranks_wait_in_every_kind_of_synchronised_norm(monkeypatch):
    model = detector(view_norm='train').train()
    monkeypatch.setattr(contrastive_detector, 'get_world_size', lambda: 2)
    assert not model._synchronises()
    layer = SyncBatchNorm.__new__(SyncBatchNorm)
    torch.nn.Module.__init__(layer)
    model.backbone.extra = layer
    assert model._synchronises()
    layer.eval()
    assert not model._synchronises()
    model.backbone.extra = torch.nn.SyncBatchNorm(2)
    assert model._synchronises()


def test_detection_losses_on_views_need_their_gradient():
    cfg = load('retina_contrast_shapes_nograd.py')
    cfg.model.bbox_head.train_views = 'both'
    with pytest.raises(ValueError, match='would not reach the backbone'):
        build(cfg)


def test_views_without_gradient_need_a_head_that_knows_them():
    # as its losses would take the views for further images
    with pytest.raises(ValueError, match="bbox_head.type='RetinaHead': detection losses on the"):
        detector('retina_shapes.py', view_grad=False)


@pytest.mark.parametrize('variant', VARIANTS)
def test_trains(variant, tiny_shapes, tmp_path):
    cfg = load(f'retina_contrast_shapes_{variant}.py')
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].dataset.data_root = f'{tiny_shapes}/'
        if split != 'train':
            ann_file = f'{tiny_shapes}/annotations/instances_{split}.json'
            cfg[f'{split}_evaluator'].ann_file = ann_file
    cfg.train_dataloader.batch_size = 4
    cfg.train_cfg.update(max_epochs=1, val_interval=1)
    cfg.default_hooks.logger.interval = 1
    cfg.param_scheduler = None
    cfg.work_dir = cfg.visualizer.name = str(tmp_path)
    runner = Runner.from_cfg(cfg)
    assert isinstance(runner.model, ContrastiveDetector) == ('nograd' in variant)
    before = {k: v.clone() for k, v in runner.model.named_parameters()}
    runner.train()
    assert all(torch.isfinite(v).all() for v in runner.model.state_dict().values())
    moved = [k for k, v in runner.model.named_parameters() if not torch.equal(v, before[k])]
    assert any(k.startswith('backbone.') for k in moved)
    assert any(k.startswith('bbox_head.contrast.') for k in moved)


def crops_and_references(gap):
    """A canvas, for each of its crops a canvas that shows it alone, and their boxes."""
    cfg = load('retina_contrast_shapes_canvas.py')
    cfg.model.data_preprocessor.canvas.gap = gap
    preprocessor = build(cfg).data_preprocessor
    torch.manual_seed(5)
    boxes = torch.tensor([[8.0, 16, 40, 40], [48, 8, 80, 48], [24, 56, 56, 88], [64, 64, 88, 96]])
    data = demo_mm_inputs(1, [[3, 128, 128]], num_classes=3, num_items=[4], use_box_type=True)
    data['data_samples'][0].gt_instances.bboxes.tensor = boxes
    pattern = F.interpolate(torch.rand(1, 3, 32, 32) * 255, (128, 128), mode='bilinear')[0]
    data['inputs'] = [torch.stack((pattern, pattern))]
    out = preprocessor(data, training=True)
    canvas, sample = out['inputs'][1], out['data_samples'][1]
    alone = []
    for x1, y1, x2, y2 in sample.gt_instances.bboxes.int().tolist():
        empty = torch.zeros_like(canvas)
        empty[:, y1:y2, x1:x2] = canvas[:, y1:y2, x1:x2]
        alone.append(empty)
    assert len(alone) == 4
    return canvas, alone, sample.gt_instances.bboxes


def pooled(feat, boxes, positions):
    rois = torch.cat((torch.as_tensor(positions, dtype=torch.float)[:, None], boxes), dim=1)
    return pool_regions(feat, rois, output_size=7, stride=8).flatten(1)


def test_features_of_a_packed_crop_are_those_of_the_crop_alone():
    canvas, alone, boxes = crops_and_references(gap=16)
    # a cell sees 8 pixels beyond itself, and a region half a cell beyond its box
    conv = torch.nn.Conv2d(3, 16, kernel_size=24, stride=8, padding=8)
    with torch.no_grad():
        feats = conv(torch.stack((canvas, *alone)))
    together, single = pooled(feats, boxes, [0, 0, 0, 0]), pooled(feats, boxes, [1, 2, 3, 4])
    torch.testing.assert_close(together, single)


def test_embeddings_of_packed_crops_are_nearest_to_those_of_the_crops_alone():
    canvas, alone, boxes = crops_and_references(gap=8)
    model = build(load('retina_contrast_shapes.py')).eval()
    project = model.bbox_head.contrast.projectors[0]
    with torch.no_grad():
        feat = model.extract_feat(torch.stack((canvas, *alone)))[0]
        together, single = (
            F.normalize(project(pooled(feat, boxes, positions)))
            for positions in ([0, 0, 0, 0], [1, 2, 3, 4])
        )
    similarity = together @ single.T
    assert similarity.argmax(dim=1).tolist() == [0, 1, 2, 3]
    assert similarity.diagonal().min() > 0.8
