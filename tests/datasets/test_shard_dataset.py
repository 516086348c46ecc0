"""Shards hold what CocoDataset gives, and runs read them."""

import json
import pickle

import numpy as np
import pytest
import torch
from knn_runs import tiny_config
from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS, HOOKS
from mmengine.fileio import get, get_text
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmdet_contrast.converters import coco_to_shards
from mmdet_contrast.datasets import ShardDataset
from mmdet_contrast.datasets.shard_backend import image_address
from mmdet_contrast.engine.hooks.distillation_hook import _annotated_in
from mmdet_contrast.engine.runner import CheckedRunner
from mmdet_contrast.utils.config import LaunchError

CLASSES = ('striped_disc', 'checkered_square', 'dotted_triangle')
PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(64, 48), keep_ratio=False),
    dict(type='RandomFlip', prob=1.0),
    dict(type='ContrastiveView', zoom_range=(2.0, 2.0)),
    dict(type='PackContrastiveInputs'),
]


@pytest.fixture(scope='module')
def root(tiny_shapes, tmp_path_factory):
    """Shards of 5, 5 and 2 pictures, one with a crowd and an ignored box, one with no box."""
    pytest.importorskip('webdataset')
    folder = tmp_path_factory.mktemp('shards')
    coco = json.loads((tiny_shapes / 'annotations/instances_train.json').read_text())
    first, second, third = (image['id'] for image in coco['images'][:3])
    coco['annotations'] = [x for x in coco['annotations'] if x['image_id'] != third]
    boxes = [x for x in coco['annotations'] if x['image_id'] == first]
    boxes[0]['iscrowd'] = 1
    next(x for x in coco['annotations'] if x['image_id'] == second)['ignore'] = 1
    (folder / 'ann.json').write_text(json.dumps(coco))
    coco_to_shards(folder / 'ann.json', tiny_shapes / 'train', folder / 'shards', 5)
    return folder


def datasets(root, tiny_shapes, **kwargs):
    kwargs.setdefault('metainfo', dict(classes=CLASSES))
    ours = ShardDataset(data_root=str(root / 'shards'), **kwargs)
    stock = CocoDataset(
        ann_file=str(root / 'ann.json'), data_prefix=dict(img=f'{tiny_shapes}/train'), **kwargs
    )
    return ours, stock


def test_samples_are_those_of_coco_dataset(root, tiny_shapes):
    ours, stock = datasets(root, tiny_shapes)
    assert len(ours) == len(stock) == 12 and ours.shard_sizes.tolist() == [5, 5, 2]
    assert ours.metainfo['classes'] == CLASSES
    by_id = {info['img_id']: info for info in map(stock.get_data_info, range(12))}
    order = []
    for i in range(12):
        info = ours.get_data_info(i)
        expected = by_id.pop(info['img_id'])
        order.append(expected['sample_idx'])
        assert info['sample_idx'] == i
        assert info['img_path'].rpartition('/')[2] == expected['img_path'].rpartition('/')[2]
        for key in expected.keys() - {'img_path', 'sample_idx'}:
            assert info[key] == expected[key], key
    assert not by_id and order != sorted(order)
    assert ours.get_data_info(-1) == ours.get_data_info(11)
    with pytest.raises(IndexError):
        ours[12]


def test_pipelines_give_the_same(root, tiny_shapes):
    ours, stock = datasets(root, tiny_shapes, pipeline=PIPELINE)
    positions = {stock.get_data_info(i)['img_id']: i for i in range(12)}
    for i in range(12):
        np.random.seed(0)
        one = ours[i]
        np.random.seed(0)
        other = stock[positions[one['data_samples'].img_id]]
        assert torch.equal(one['inputs'], other['inputs'])
        one, other = one['data_samples'], other['data_samples']
        assert one.ori_shape == other.ori_shape and one.img_shape == other.img_shape
        for part in ('gt_instances', 'ignored_instances'):
            assert torch.equal(one.get(part).labels, other.get(part).labels)
            assert torch.equal(one.get(part).bboxes.tensor, other.get(part).bboxes.tensor)


@pytest.mark.parametrize(
    'options',
    [
        dict(filter_cfg=dict(filter_empty_gt=True)),
        dict(filter_cfg=dict(filter_empty_gt=True), metainfo=dict(classes=CLASSES[2:])),
        dict(filter_cfg=dict(filter_empty_gt=True), test_mode=True),
        dict(filter_cfg=dict(min_size=90)),
    ],
)
def test_filters_as_coco_dataset_does(root, tiny_shapes, options):
    ours, stock = datasets(root, tiny_shapes, **options)
    found, expected = (
        sorted(part.get_data_info(i)['img_id'] for i in range(len(part))) for part in (ours, stock)
    )
    assert found == expected
    assert ours.shard_sizes.sum() == len(ours)
    if options == dict(filter_cfg=dict(filter_empty_gt=True)):
        assert len(found) == 11


def test_labels_are_positions_in_metainfo(root):
    usual = ShardDataset(str(root / 'shards'))
    assert usual.metainfo['classes'] == CLASSES
    turned = ShardDataset(str(root / 'shards'), metainfo=dict(classes=CLASSES[::-1]))
    labels = [
        [x['bbox_label'] for i in range(12) for x in part.get_data_info(i)['instances']]
        for part in (usual, turned)
    ]
    assert set(labels[0]) == {0, 1, 2} and labels[1] == [2 - label for label in labels[0]]


def test_refused(root, tmp_path):
    shards = str(root / 'shards')
    with pytest.raises(LaunchError, match="classes \\['bird'\\], which .*index.json"):
        ShardDataset(shards, metainfo=dict(classes=('striped_disc', 'bird')))
    with pytest.raises(LaunchError, match='the same order'):
        ShardDataset(shards, metainfo=dict(classes=CLASSES[::-1]), test_mode=True)
    with pytest.raises(LaunchError, match='no image of .* is left'):
        ShardDataset(shards, filter_cfg=dict(min_size=97))
    with pytest.raises(LaunchError, match='has no index.json'):
        ShardDataset(str(tmp_path))


def test_travels_to_workers_and_is_built_late(root):
    dataset = ShardDataset(str(root / 'shards'), lazy_init=True)
    assert not dataset._fully_initialized
    assert len(dataset) == 12
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy.get_data_info(7) == dataset.get_data_info(7)


def test_addresses_keep_the_name(root, tmp_path):
    (tmp_path / 'a.tar').write_bytes(b'0123456789')
    address = image_address(str(tmp_path / 'a.tar'), 3, 4, 'folder/b c.jpg')
    assert address.endswith('/a.tar/3-4/b c.jpg')
    assert get(address) == b'3456' and get_text(address) == '3456'


@HOOKS.register_module(force=True)
class KeepIds(Hook):
    """Keep which pictures each epoch has seen."""

    def before_train(self, runner):
        self.epochs = {}

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        ids = [sample.img_id for sample in data_batch['data_samples']]
        assert all(picture.shape[0] == 2 for picture in data_batch['inputs'])
        self.epochs.setdefault(runner.epoch, []).extend(ids)


def train(root, tiny_shapes, work_dir, max_epochs, workers=0, checkpoint=None, **options):
    cfg = tiny_config(tiny_shapes, work_dir, [dict(type='KeepIds')], max_epochs, contrastive=True)
    loader = cfg.train_dataloader
    loader.num_workers = workers
    loader.persistent_workers = workers > 0
    loader.sampler = dict(type='ShardSampler', shards_at_once=2)
    pipeline = loader.dataset.pipeline
    loader.pop('dataset')
    loader.dataset = dict(
        type='ShardDataset',
        data_root=str(root / 'shards'),
        metainfo=dict(classes=CLASSES),
        pipeline=pipeline,
    )
    cfg.randomness = dict(seed=3)
    cfg.default_hooks.checkpoint = checkpoint or cfg.default_hooks.checkpoint
    for key, value in options.items():
        cfg[key] = value
    runner = CheckedRunner.from_cfg(cfg)
    runner.train()
    return runner, next(hook for hook in runner.hooks if isinstance(hook, KeepIds)).epochs


def test_a_resumed_run_reads_the_epochs_that_are_left(root, tiny_shapes, tmp_path):
    runner, whole = train(root, tiny_shapes, tmp_path / 'whole', 3, workers=2)
    assert isinstance(runner.train_dataloader.dataset, ShardDataset)
    assert sorted(whole) == [0, 1, 2]
    assert all(len(ids) == len(set(ids)) == 12 for ids in whole.values())
    assert len({tuple(ids) for ids in whole.values()}) == 3
    _, rest = train(
        root,
        tiny_shapes,
        tmp_path / 'rest',
        3,
        resume=True,
        load_from=str(tmp_path / 'whole/epoch_2.pth'),
    )
    assert rest == {2: whole[2]}


def test_iterations_resume_in_the_middle_of_an_epoch(root, tiny_shapes, tmp_path):
    # an epoch has 3 iterations
    options = dict(
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=6, val_interval=100),
        log_processor=dict(type='LogProcessor', by_epoch=False),
    )
    checkpoint = dict(type='CheckpointHook', by_epoch=False, interval=4)
    _, whole = train(root, tiny_shapes, tmp_path / 'whole', 1, checkpoint=checkpoint, **options)
    first, second = whole[0][:12], whole[0][12:]
    assert first != second and sorted(first) == sorted(second) and len(set(first)) == 12
    start = str(tmp_path / 'whole/iter_4.pth')
    _, rest = train(
        root, tiny_shapes, tmp_path / 'rest', 1, resume=True, load_from=start, **options
    )
    assert rest == {0: whole[0][16:]}


def test_wrappers_work(root):
    part = dict(type='ShardDataset', data_root=str(root / 'shards'), pipeline=PIPELINE)
    both = DATASETS.build(dict(type='ConcatDataset', datasets=[part, part]))
    assert len(both) == 24
    assert both[13]['data_samples'].img_id == both[1]['data_samples'].img_id
    # distillation looks for a part of a COCO file that shards never have
    assert _annotated_in(both) == {}


def test_batches_by_aspect_ratio(root):
    loader = Runner.build_dataloader(
        dict(
            batch_size=5,
            num_workers=0,
            sampler=dict(type='ShardSampler'),
            batch_sampler=dict(type='AspectRatioBatchSampler'),
            dataset=dict(type='ShardDataset', data_root=str(root / 'shards'), pipeline=PIPELINE),
        ),
        seed=0,
    )
    batches = [[sample.img_id for sample in batch['data_samples']] for batch in loader]
    assert [len(batch) for batch in batches] == [5, 5, 2]
    assert len(set(sum(batches, []))) == 12
