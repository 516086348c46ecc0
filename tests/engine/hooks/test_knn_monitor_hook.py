"""The monitor: what it logs, that it changes nothing, what it refuses."""

import json
import logging
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from knn_runs import equal, tiny_config, train, weights_of
from lightly_knn import lightly_knn_predict
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import IterBasedTrainLoop, Runner

from mmdet_contrast import config_path
from mmdet_contrast.engine.hooks import KNNMonitorHook
from mmdet_contrast.evaluation.functional import embedding_std

CLASSES = ['striped_disc', 'checkered_square', 'dotted_triangle']
HOOK = dict(type='KNNMonitorHook')


@pytest.fixture(scope='module')
def plain(tiny_shapes, tmp_path_factory):
    """Weights after two epochs without the hook."""
    return weights_of(train(tiny_shapes, tmp_path_factory.mktemp('plain'))[0])


@pytest.fixture(scope='module')
def monitored(tiny_shapes, tmp_path_factory):
    """A run that looks at its features each epoch."""
    folder = tmp_path_factory.mktemp('monitored')
    hook = dict(HOOK, num_workers=1, level=0)
    return train(tiny_shapes, folder, hook), folder


def test_training_is_the_same_to_the_last_bit(plain, monitored):
    assert equal(plain, weights_of(monitored[0][0]))


def test_the_log_has_the_figures_of_each_epoch(monitored):
    (runner, rows), folder = monitored
    assert [row['step'] for row in rows] == [1, 2]
    for row in rows:
        assert 0 <= row['knn/top1'] <= row['knn/top5'] == 1
        assert 0 < row['knn/std'] < 1
        assert not [key for key in row if 'loss' in key]
    text = '\n'.join(path.read_text() for path in folder.glob('*/*.log'))
    assert text.count('knn/top1: ') == 2 and 'bank of' in text and '1/sqrt(16)' in text


def test_figures_are_those_of_the_boxes(tiny_shapes, monitored):
    """The last look again, by hand: images, scaled boxes, RoIAlign, lightly's votes."""
    from mmcv.ops import roi_align
    from mmdet.structures.bbox import bbox2roi

    (runner, rows), _ = monitored
    model = runner.model.eval()
    vectors, labels = {}, {}
    for split in ('train', 'val'):
        annotations = json.loads(
            (tiny_shapes / 'annotations' / f'instances_{split}.json').read_text()
        )
        names = {x['id']: x['name'] for x in annotations['categories']}
        parts, classes = [], []
        for image in annotations['images']:
            picture = cv2.imread(str(tiny_shapes / split / image['file_name']))
            scale = 64 / picture.shape[0]
            picture = cv2.resize(picture, (64, 64), interpolation=cv2.INTER_LINEAR)
            inputs = torch.from_numpy(picture).permute(2, 0, 1).contiguous()
            own = [
                x
                for x in annotations['annotations']
                if x['image_id'] == image['id'] and not x['iscrowd']
            ]
            boxes = [[x, y, x + w, y + h] for x, y, w, h in (x['bbox'] for x in own)]
            batch = model.data_preprocessor(dict(inputs=[inputs], data_samples=None), False)
            with torch.no_grad():
                feats = model.extract_feat(batch['inputs'])
            rois = bbox2roi([feats[0].new_tensor(boxes).reshape(-1, 4) * scale])
            parts.append(roi_align(feats[0], rois, (1, 1), 1 / 8, 8, 'avg', True).flatten(1))
            classes += [CLASSES.index(names[x['category_id']]) for x in own]
        vectors[split] = F.normalize(torch.cat(parts), dim=1)
        labels[split] = torch.tensor(classes, device=vectors[split].device)
    bank = vectors['train']
    predicted = lightly_knn_predict()(
        vectors['val'], bank.T, labels['train'], 3, knn_k=min(200, len(bank)), knn_t=0.1
    )
    top1 = (predicted[:, 0] == labels['val']).double().mean().item()
    assert rows[-1]['knn/top1'] == pytest.approx(top1, abs=1e-6)
    assert rows[-1]['knn/std'] == pytest.approx(embedding_std(vectors['val']), rel=1e-4)


def test_some_samples_of_a_contrastive_training(plain, tiny_shapes, tmp_path):
    """On a contrastive config."""
    without = weights_of(train(tiny_shapes, tmp_path / 'a', contrastive=True)[0])
    hook = dict(HOOK, interval=2, max_samples=6, level='scale')
    runner, rows = train(tiny_shapes, tmp_path / 'b', hook, contrastive=True)
    assert equal(without, weights_of(runner)) and not equal(without, plain)
    (row,) = rows
    assert row['step'] == 2 and 0 < row['knn/std'] < 1
    monitor = next(h for h in runner.hooks if isinstance(h, KNNMonitorHook))
    assert [len(part.dataset) for part in monitor._sets] == [6, 4]


def folder_of_colours(root, classes=('red', 'green', 'blue'), count=4):
    for number, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for i in range(count):
            picture = np.random.randint(0, 60, (40, 48, 3)).astype(np.uint8)
            picture[..., 2 - number % 3] += 180
            cv2.imwrite(str(root / name / f'{i}.png'), picture)


def test_image_folders(tiny_shapes, tmp_path):
    for split in ('train', 'val'):
        folder_of_colours(tmp_path / split)
    cfg = Config.fromfile(config_path('retina_shapes.py'))
    folder = dict(type='LabelledImageFolder', pipeline=cfg.test_pipeline)
    hook = dict(
        HOOK,
        bank=dict(folder, data_root=str(tmp_path / 'train')),
        queries=dict(folder, data_root=str(tmp_path / 'val')),
        module='backbone',
        level=-1,
        k=3,
    )
    _, rows = train(tiny_shapes, tmp_path / 'run', hook, max_epochs=1)
    # colours are told apart by any network
    assert rows[0]['knn/top1'] == 1
    (tmp_path / 'val' / 'red').rename(tmp_path / 'val' / 'rot')
    with pytest.raises(ValueError, match=r"bank of KNNMonitorHook has the classes .*'red'.*'rot'"):
        train(tiny_shapes, tmp_path / 'run2', hook, max_epochs=1)


def test_pretraining_with_boxes_of_the_backbone(tiny_shapes, tmp_path):
    """A model without neck and head, two views in training, no validation."""
    cfg = Config.fromfile(config_path('pretrain/simsiam_shapes.py'))
    cfg.model.backbone.base_channels = 4
    cfg.model.projector.channels = (32, 16, 16, 16)
    cfg.model.predictor.channels = (16, 4, 16)
    cfg.train_dataloader.update(batch_size=6)
    cfg.train_dataloader.dataset.data_root = f'{tiny_shapes}/train'
    cfg.train_cfg.max_epochs = 1
    cfg.work_dir, cfg.experiment_name = str(tmp_path), f'knn-{str(tmp_path)[-60:]}'
    cfg.visualizer = dict(
        type='DetLocalVisualizer', name=str(tmp_path), vis_backends=[dict(type='LocalVisBackend')]
    )
    bank = bank_config(tiny_shapes, 'annotations/instances_train.json')
    queries = dict(bank, ann_file='annotations/instances_val.json', data_prefix=dict(img='val/'))
    cfg.custom_hooks = [dict(HOOK, bank=bank, queries=queries)]
    Runner.from_cfg(cfg).train()
    (log,) = tmp_path.glob('*/*.log')
    assert 'knn/top1: ' in log.read_text() and ', backbone, 1/sqrt(32)' in log.read_text()
    cfg.custom_hooks = [HOOK]
    cfg.experiment_name += '2'
    with pytest.raises(ValueError, match='no val_dataloader.dataset in the config: give queries='):
        Runner.from_cfg(cfg).train()


def without_boxes(root, tmp_path, drop):
    """A copy of the annotations of training without the boxes of some classes."""
    path = root / 'annotations' / 'instances_train.json'
    data = json.loads(path.read_text())
    names = {x['id']: x['name'] for x in data['categories']}
    data['annotations'] = [x for x in data['annotations'] if names[x['category_id']] not in drop]
    out = tmp_path / 'bank.json'
    out.write_text(json.dumps(data))
    return str(out), list(names.values())


def bank_config(root, ann_file):
    cfg = Config.fromfile(config_path('retina_shapes.py'))
    bank = cfg.train_dataloader.dataset.to_dict()
    return dict(bank, data_root=f'{root}/', ann_file=ann_file, pipeline=cfg.test_pipeline)


def built(cfg, **options):
    """Names of the transforms of the hook's bank and queries."""
    init_default_scope('mmdet')
    hook = KNNMonitorHook(**options)
    hook._build(SimpleNamespace(cfg=cfg, logger=logging.getLogger()))
    parts = [getattr(part.dataset, 'datasets', [part.dataset]) for part in hook._sets]
    return [[type(x).__name__ for x in part[0].pipeline.transforms] for part in parts]


TEST = ['LoadImageFromFile', 'LoadAnnotations', 'Resize', 'PackDetInputs']


def test_the_bank_is_not_augmented_where_the_queries_are_wrapped(tiny_shapes, tmp_path):
    cfg = tiny_config(tiny_shapes, tmp_path, [])
    own = cfg.val_dataloader.dataset
    assert any(step.type == 'RandomFlip' for step in cfg.train_dataloader.dataset.pipeline)
    cfg.val_dataloader.dataset = dict(type='ConcatDataset', datasets=[own, own])
    assert built(cfg) == [TEST, TEST]


def test_a_bank_keeps_its_pipeline_or_takes_that_of_the_queries(tiny_shapes, tmp_path):
    cfg = tiny_config(tiny_shapes, tmp_path, [])
    bank = cfg.train_dataloader.dataset.to_dict()
    flipped = [*TEST[:3], 'RandomFlip', TEST[3]]
    assert built(cfg, bank=bank) == [flipped, TEST]
    del bank['pipeline']
    assert built(cfg, bank=bank) == [TEST, TEST]
    queries = cfg.val_dataloader.dataset.to_dict()
    del queries['pipeline']
    with pytest.raises(ValueError, match='give the data set the test_pipeline'):
        built(cfg, queries=queries)


def test_classes_in_another_order_than_in_the_file(tiny_shapes, tmp_path):
    cfg = tiny_config(tiny_shapes, tmp_path, [])
    for split in ('train', 'val'):
        cfg[f'{split}_dataloader'].dataset.metainfo = dict(classes=tuple(CLASSES[::-1]))
    with pytest.raises(ValueError, match='bank of KNNMonitorHook: .*in its order'):
        built(cfg)


def test_what_there_is_not_is_said_once(tiny_shapes, tmp_path):
    ann_file, names = without_boxes(tiny_shapes, tmp_path, ['checkered_square'])
    hook = dict(HOOK, bank=bank_config(tiny_shapes, ann_file))
    _, rows = train(tiny_shapes, tmp_path, hook)
    assert all(row['knn/top1'] < 1 for row in rows)
    text = '\n'.join(path.read_text() for path in tmp_path.glob('*/*.log'))
    assert text.count("no box of ['checkered_square']") == 1


def test_an_empty_bank(tiny_shapes, tmp_path):
    ann_file, names = without_boxes(tiny_shapes, tmp_path, CLASSES)
    hook = dict(HOOK, bank=bank_config(tiny_shapes, ann_file))
    with pytest.raises(ValueError, match='bank of KNNMonitorHook has no labelled box'):
        train(tiny_shapes, tmp_path, hook, max_epochs=1)


def test_a_bank_without_areas_is_completed(tiny_shapes, tmp_path):
    coco = json.loads((tiny_shapes / 'annotations' / 'instances_train.json').read_text())
    for annotation in coco['annotations']:
        del annotation['area']
    (tmp_path / 'bank.json').write_text(json.dumps(coco))
    cfg = tiny_config(tiny_shapes, tmp_path, [])
    bank = bank_config(tiny_shapes, str(tmp_path / 'bank.json'))
    assert len(built(cfg, bank=bank)) == 2
    assert bank['ann_file'] == str(tmp_path / 'bank.json')


@pytest.mark.parametrize('wrong', [dict(level=7), dict(module='nek')])
def test_a_map_that_is_not_there_is_refused_before_the_training(tiny_shapes, tmp_path, wrong):
    with pytest.raises(ValueError, match="index of the 5 feature maps|'nek'"):
        train(tiny_shapes, tmp_path, dict(HOOK, **wrong))
    assert not list(tmp_path.glob('*.pth')) and not list(tmp_path.glob('*/vis_data/*.json'))


def test_a_training_that_counts_iterations_is_refused():
    loop = object.__new__(IterBasedTrainLoop)
    with pytest.raises(ValueError, match='train_cfg counts iterations'):
        KNNMonitorHook().before_train(SimpleNamespace(train_loop=loop))
