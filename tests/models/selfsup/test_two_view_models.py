"""SimSiam and SimCLR: values, heads, training through Runner, collapse."""

import logging
import math
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from mmcv.cnn import is_norm
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.model import convert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from torch import nn

from mmdet_contrast import config_path
from mmdet_contrast.models.selfsup import SimCLR, SimSiam

BACKBONE = dict(type='ResNet', depth=18, base_channels=8, out_indices=(3,), norm_eval=False)
PROJECTOR = dict(type='BatchNormMLP', channels=(64, 32, 32, 32), last_norm=True)
PREDICTOR = dict(type='BatchNormMLP', channels=(32, 8, 32))


def build(**changes):
    cfg = dict(backbone=BACKBONE, projector=PROJECTOR, predictor=PREDICTOR)
    return SimSiam(**deepcopy({**cfg, **changes}))


def views(n=4, size=32):
    return dict(view1=torch.randn(n, 3, size, size), view2=torch.randn(n, 3, size, size))


def slow_loss(p1, z1, p2, z2):
    total = 0.0
    for i in range(len(p1)):
        for p, z in ((p1[i], z2[i]), (p2[i], z1[i])):
            total -= 0.5 * float(p @ z) / (float(p.norm()) * float(z.norm()))
    return total / len(p1)


def embed(model, view):
    z = model.projector(model.backbone(view)[-1].mean(dim=(2, 3)))
    return z, model.predictor(z)


def test_loss_and_std_equal_a_slow_loop():
    model, data = build().train(), views()
    losses = model(data, mode='loss')
    with torch.no_grad():
        (z1, p1), (z2, p2) = (embed(model, view) for view in data.values())
    assert float(losses['loss_simsiam']) == pytest.approx(slow_loss(p1, z1, p2, z2), abs=1e-5)
    unit = np.array([(row / row.norm()).tolist() for row in z1])
    assert float(losses['embedding_std']) == pytest.approx(
        unit.std(axis=0, ddof=1).mean(), abs=1e-6
    )
    assert [key for key in losses if 'loss' in key] == ['loss_simsiam']


def test_equals_lightly():
    heads = pytest.importorskip('lightly.models.modules', reason='lightly is not installed')
    loss = pytest.importorskip('lightly.loss', reason='lightly is not installed')
    model, data = build().train(), views()
    projector = heads.SimSiamProjectionHead(64, 32, 32)
    predictor = heads.SimSiamPredictionHead(32, 8, 32)
    for theirs, ours in ((projector, model.projector), (predictor, model.predictor)):
        weights = dict(zip(theirs.state_dict(), ours.state_dict().values()))
        assert len(weights) == len(ours.state_dict()) == len(theirs.state_dict())
        theirs.load_state_dict(weights)
    criterion = loss.NegativeCosineSimilarity()
    z, p = [], []
    for view in data.values():
        z.append(projector(model.backbone(view)[-1].mean(dim=(2, 3))))
        p.append(predictor(z[-1]))
    expected = 0.5 * (criterion(p[0], z[1].detach()) + criterion(p[1], z[0].detach()))
    ours = model(data, mode='loss')['loss_simsiam']
    torch.testing.assert_close(ours, expected)
    weight = model.backbone.conv1.weight
    torch.testing.assert_close(
        torch.autograd.grad(ours, weight), torch.autograd.grad(expected, weight)
    )


@pytest.mark.parametrize(
    'backbone, channels',
    [
        (dict(type='CSPDarknet', deepen_factor=0.33, widen_factor=0.125, out_indices=(4,)), 128),
        (
            dict(
                type='SwinTransformer',
                embed_dims=8,
                depths=(1, 1, 1, 1),
                num_heads=(1, 1, 1, 1),
                window_size=2,
                out_indices=(3,),
            ),
            64,
        ),
    ],
)
def test_any_backbone_of_mmdetection(backbone, channels):
    model = build(backbone=backbone, projector=dict(PROJECTOR, channels=(channels, 32, 32, 32)))
    sum(v for k, v in model.train()(views(size=64), mode='loss').items() if 'loss' in k).backward()
    # what gets no gradient would stop DDP
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    assert model(torch.randn(2, 3, 64, 64)).shape == (2, channels)


def collapsed():
    """A model whose embedding is the same for every image."""
    model = build().train()
    model.projector = nn.Sequential(nn.Linear(64, 32))
    nn.init.zeros_(model.projector[0].weight)
    return model


def test_warns_of_collapse_once(caplog, monkeypatch):
    monkeypatch.setattr('mmengine.logging.MMLogger.get_current_instance', logging.getLogger)
    monkeypatch.setattr(SimSiam, '_INTERVAL', 3)
    model = collapsed()
    counts = []
    for _ in range(9):
        assert float(model(views(), mode='loss')['embedding_std']) == pytest.approx(0, abs=1e-6)
        counts.append(len(caplog.records))
    assert counts == [0, 0] + [1] * 7
    assert 'is collapsing' in caplog.text
    assert 'healthy' in caplog.text


def test_does_not_warn_of_a_healthy_embedding(caplog, monkeypatch):
    monkeypatch.setattr('mmengine.logging.MMLogger.get_current_instance', logging.getLogger)
    monkeypatch.setattr(SimSiam, '_INTERVAL', 1)
    model = build().train()
    for _ in range(4):
        model(views(), mode='loss')
    assert not caplog.records


def test_sync_bn_reaches_every_layer():
    model = convert_sync_batchnorm(build().train(), 'torch')
    layers = [m for m in model.modules() if is_norm(m)]
    assert len(layers) == 20 + 3 + 1
    assert all(isinstance(layer, nn.SyncBatchNorm) for layer in layers)
    assert model.projector.layers[-1].affine is False


def test_pre_training_predicts_nothing():
    with pytest.raises(ValueError, match='val_dataloader, val_cfg and val_evaluator'):
        build()(torch.zeros(2, 3, 32, 32), mode='predict')


# SimCLR


@pytest.fixture
def simclr():
    return SimCLR(
        backbone=BACKBONE,
        projector=dict(type='MLPProjector', in_channels=64, hidden_channels=32, out_channels=16),
        criterion=dict(type='NTXentLoss', temperature=0.5, negatives='all'),
    ).train()


def slow_nt_xent(z, temperature=0.5):
    """The mean over all 2N anchors; row i and row i + N are a pair."""
    n = len(z) // 2
    total = 0.0
    for i in range(2 * n):
        values = [
            math.exp(float(z[i] @ z[k]) / float(z[i].norm() * z[k].norm()) / temperature)
            for k in range(2 * n)
        ]
        total -= math.log(values[(i + n) % (2 * n)] / (sum(values) - values[i]))
    return total / (2 * n)


def test_simclr_equals_a_slow_loop(simclr):
    data = views(3)
    losses = simclr(data, mode='loss')
    with torch.no_grad():
        z = [simclr.projector(simclr.backbone(v)[-1].mean(dim=(2, 3))) for v in data.values()]
    assert float(losses['loss_nt_xent']) == pytest.approx(slow_nt_xent(torch.cat(z)), abs=1e-5)
    assert set(losses) == {'loss_nt_xent', 'embedding_std'}


def test_simclr_equals_lightly(simclr):
    loss = pytest.importorskip('lightly.loss', reason='lightly is not installed')
    data = views(8)
    z = [simclr.projector(simclr.extract_feat(v)) for v in data.values()]
    expected = loss.NTXentLoss(temperature=0.5)(*z)
    torch.testing.assert_close(simclr(data, mode='loss')['loss_nt_xent'], expected)


def test_one_image_has_no_negatives(simclr):
    with pytest.raises(ValueError, match='batch of one image, whose loss is 0'):
        simclr.eval()(views(1), mode='loss')


# Training


def tiny_config(tmp_path, images, epochs=2, **changes):
    cfg = Config.fromfile(config_path('pretrain/simsiam_shapes.py'))
    cfg.merge_from_dict(
        {
            'model.projector.channels': (128, 32, 32, 32),
            'model.predictor.channels': (32, 8, 32),
            'train_dataloader.batch_size': 4,
            'train_dataloader.dataset.data_root': str(images),
            'train_cfg.max_epochs': epochs,
            'param_scheduler.0.T_max': epochs,
            'work_dir': str(tmp_path),
            'default_hooks.checkpoint.interval': 1,
            'default_hooks.checkpoint.max_keep_ckpts': -1,
            **changes,
        }
    )
    return cfg


def test_trains_and_the_backbone_starts_a_detector(tiny_shapes, tmp_path):
    runner = Runner.from_cfg(tiny_config(tmp_path, tiny_shapes / 'train'))
    rates = []

    class Watch:
        """The learning rates that the optimizer sees."""

        step = runner.model.train_step

        def __call__(self, data, optim_wrapper):
            names = {id(p): name for name, p in runner.model.named_parameters()}
            rates.append(
                {
                    names[id(g['params'][0])].split('.')[0]: g['lr']
                    for g in optim_wrapper.optimizer.param_groups
                }
            )
            return self.step(data, optim_wrapper)

    runner.model.train_step = Watch()
    runner.train()
    assert len(rates) == 6
    assert [r['predictor'] for r in rates] == [0.1] * 6
    assert [r['backbone'] for r in rates] == sorted((r['backbone'] for r in rates), reverse=True)
    assert rates[-1]['backbone'] < 0.02
    log = next(Path(tmp_path).glob('*/*.log')).read_text()
    assert 'embedding_std' in log
    assert 'predictor_lr: 1.0000e-01' in log

    detector = Config.fromfile(config_path('retina_shapes.py'))
    trained = runner.model.backbone.state_dict()
    detector.model.backbone.init_cfg = dict(
        type='Pretrained', checkpoint=str(tmp_path / 'epoch_2.pth'), prefix='backbone.'
    )
    model = MODELS.build(detector.model)
    model.init_weights()
    loaded = model.backbone.state_dict()
    assert loaded.keys() == trained.keys()
    for name, value in trained.items():
        torch.testing.assert_close(loaded[name], value.cpu(), msg=name)


@pytest.mark.parametrize('name', ['shapes', 'bccd'])
def test_shipped_configs_train_the_backbone_of_their_detector(name):
    init_default_scope('mmdet')
    detector = Config.fromfile(config_path(f'retina_{name}_pretrained.py')).model.backbone
    linear = Config.fromfile(config_path(f'linear_{name}.py')).model.backbone
    methods = [Config.fromfile(config_path(f'{m}_{name}.py')) for m in ('simsiam', 'simclr')]
    last = f'work_dirs/simsiam_{name}/epoch_{methods[0].train_cfg.max_epochs}.pth'
    for section in (detector, linear):
        assert section.init_cfg == dict(type='Pretrained', checkpoint=last, prefix='backbone.')
    shapes = [
        {key: value.shape for key, value in MODELS.build(section).state_dict().items()}
        for section in (
            *(cfg.model.backbone for cfg in methods),
            {**detector, 'init_cfg': None},
            {**linear, 'init_cfg': None},
        )
    ]
    assert all(one == shapes[0] for one in shapes)


def test_workers_draw_the_same_views_again_from_a_coco_file(tiny_shapes, tmp_path):
    dataset = dict(
        type='CocoDataset',
        data_root=f'{tiny_shapes}/',
        ann_file='annotations/instances_train.json',
        data_prefix=dict(img='train/'),
        metainfo=dict(classes=()),
        pipeline=Config.fromfile(config_path('pretrain/simsiam_shapes.py')).train_pipeline,
    )
    cfg = tiny_config(tmp_path, '', **{'train_dataloader.num_workers': 2})
    cfg.train_dataloader.dataset = dataset

    def first_batch():
        loader = Runner.build_dataloader(deepcopy(cfg.train_dataloader), seed=0)
        return next(iter(loader))['inputs']

    first, again = first_batch(), first_batch()
    for name in ('view1', 'view2'):
        assert len(first[name]) == 4
        for a, b in zip(first[name], again[name]):
            assert a.shape == (3, 64, 64) and a.dtype == torch.uint8
            assert torch.equal(a, b)
    assert not torch.equal(first['view1'][0], first['view2'][0])
