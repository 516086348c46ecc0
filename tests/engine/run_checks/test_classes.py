"""Classes of data, files, heads and linear evaluations."""

import json
from pathlib import Path
from types import SimpleNamespace as Part

import mmdet
import pytest
import torch
from mmcv.transforms import Compose, LoadImageFromFile
from mmdet.datasets import CocoDataset, LVISV1Dataset, MOTChallengeDataset
from mmdet.datasets.transforms import LoadAnnotations, PackDetInputs, Resize
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.model import BaseTTAModel
from torch import nn

from mmdet_contrast.engine.run_checks import (
    check_classes,
    check_dataset,
    check_heads,
    check_linear,
)
from mmdet_contrast.models.selfsup import LinearClassifier
from mmdet_contrast.utils.config import LaunchError


class ToyDataset:
    def __init__(self, cat_ids, classes, ann_file, length=1):
        self.cat_ids, self.metainfo, self.ann_file = cat_ids, dict(classes=classes), ann_file
        self.length = length

    def __len__(self):
        return self.length


class ToyTTA(BaseTTAModel):
    def merge_preds(self, data_samples_list):
        raise NotImplementedError


def labelled(*classes, early=()):
    """Data of a linear evaluation."""
    steps = [LoadImageFromFile(), *early, LoadAnnotations(with_bbox=True), PackDetInputs()]
    return Part(metainfo=dict(classes=classes), pipeline=Compose(steps))


def classifier():
    backbone = dict(type='mmdet.ResNet', depth=18, base_channels=4)
    return LinearClassifier(backbone, num_classes=2, in_channels=32)


def test_classes_are_those_of_the_annotation_file(tmp_path):
    file = tmp_path / 'x.json'
    file.write_text('{"categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]}')
    good = ToyDataset([1, 2], ('cat', 'dog'), str(file))
    bad = ToyDataset([1], ('cat', 'dgo'), str(file))
    check_dataset(None, 'val_dataloader')
    check_dataset(good, 'train_dataloader')
    check_dataset(Part(dataset=Part(datasets=[good])), 'train_dataloader')
    for dataset in (bad, Part(dataset=bad), Part(datasets=[good, bad])):
        with pytest.raises(LaunchError, match=r"train_dataloader: .*'dgo'.*among \('cat', 'dog'\)"):
            check_dataset(dataset, 'train_dataloader')

    class OwnType(ToyDataset):
        METAINFO = dict(classes=('dog', 'cat'))

    # names of one's own type are no promise about one's files
    for kind in (ToyDataset, OwnType):
        with pytest.raises(LaunchError, match=r"has \('cat', 'dog'\) in this order"):
            check_dataset(kind([1, 2], ('dog', 'cat'), str(file)), 'train_dataloader')
    with pytest.raises(LaunchError, match='val_dataloader: no image of .* is left'):
        check_dataset(ToyDataset([1], ('cat',), None, length=0), 'val_dataloader')


def test_built_coco_data_are_judged_by_the_reader(tmp_path):
    content = dict(
        categories=[dict(id=1, name='cat'), dict(id=2, name='dog')],
        images=[dict(id=1, file_name='a.jpg', width=8, height=8)],
        annotations=[],
    )
    (tmp_path / 'x.json').write_text(json.dumps(content))

    def data(*classes):
        return CocoDataset(
            ann_file=str(tmp_path / 'x.json'),
            metainfo=dict(classes=classes),
            data_prefix=dict(img=''),
            pipeline=[],
        )

    check_dataset(data('cat', 'dog'), 'train_dataloader')
    check_dataset(data('dog'), 'train_dataloader')
    with pytest.raises(LaunchError, match="classes .'dog', 'cat'.*file .*x.json"):
        check_dataset(data('dog', 'cat'), 'train_dataloader')


def test_forgotten_metainfo_names_both_lists():
    classes = CocoDataset.METAINFO['classes']
    text = r"the 80 classes of CocoDataset, \('person', .* has \('cell',\): set metainfo"
    with pytest.raises(LaunchError, match=text):
        check_classes('train_dataloader', CocoDataset, classes, {0: 'cell'}, 'x.json')
    # any file can be a CocoDataset; of its other data sets MMDetection itself promises the order
    backwards = dict(enumerate(reversed(classes)))
    with pytest.raises(LaunchError, match="has .'toothbrush', 'hair drier'.*: set metainfo"):
        check_classes('train_dataloader', CocoDataset, classes, backwards, 'x.json')
    check_classes('train_dataloader', CocoDataset, classes, dict(enumerate(classes)), 'x.json')
    classes = LVISV1Dataset.METAINFO['classes']
    backwards = dict(enumerate(reversed(classes)))
    check_classes('train_dataloader', LVISV1Dataset, classes, backwards, 'x.json')


def test_videos_are_of_one_class_whatever_mmdetection_lists(tmp_path):
    content = dict(
        categories=[dict(id=1, name='pedestrian')],
        videos=[dict(id=1, name='v')],
        images=[dict(id=1, video_id=1, frame_id=0, file_name='a.jpg', width=8, height=8)],
        annotations=[],
    )
    (tmp_path / 'x.json').write_text(json.dumps(content))
    data = MOTChallengeDataset(ann_file=str(tmp_path / 'x.json'), pipeline=[], test_mode=True)
    assert len(data.metainfo['classes']) == 13
    check_dataset(data, 'test_dataloader')


def build_stock(name):
    cfg = Config.fromfile(Path(mmdet.__file__).parent / f'.mim/configs/{name}.py')
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    return cfg, model


def test_a_head_has_all_classes_of_its_data():
    head = nn.Sequential(MODELS.build(dict(type='mmdet.RetinaHead', num_classes=2, in_channels=8)))
    for exact in (False, True):
        check_heads(head, ('a', 'b'), 'train_dataloader', exact)
        check_heads(head, (), 'train_dataloader', exact)
        with pytest.raises(LaunchError, match='num_classes=2, but train_dataloader has the 3 cl'):
            check_heads(head, ('a', 'b', 'c'), 'train_dataloader', exact)
    check_heads(head, ('a',), 'train_dataloader')
    with pytest.raises(LaunchError, match='num_classes=2, but val_dataloader has the 1 classes'):
        check_heads(head, ('a',), 'val_dataloader', exact=True)


@pytest.mark.parametrize('name', ['dino/dino-4scale_r50_8xb2-12e_coco',
                                  'solo/solo_r50_fpn_1x_coco'])  # fmt: skip
def test_heads_that_are_no_dense_heads_have_all_classes_too(name):
    _, model = build_stock(name)
    check_heads(model, CocoDataset.METAINFO['classes'], 'val_dataloader', exact=True)
    with pytest.raises(LaunchError, match='has num_classes=80, but val_dataloader has the 2 clas'):
        check_heads(model, ('a', 'b'), 'val_dataloader', exact=True)


@pytest.mark.parametrize('name', ['panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco',
                                  'guided_anchoring/ga-rpn_r50_fpn_1x_coco'])  # fmt: skip
def test_heads_that_know_other_classes_than_the_data_pass(name):
    cfg, model = build_stock(name)
    classes = DATASETS.get(cfg.train_dataloader.dataset.type).METAINFO['classes']
    check_heads(model, classes, 'val_dataloader', exact=True)


def test_linear_evaluation_reads_boxes_right_after_the_image():
    model, resize = classifier(), Resize(scale=(8, 8))
    good, bad = labelled('a'), labelled('a', early=[resize])
    crops = Part(whole_images=True, dataset=bad, metainfo={})
    for dataset in (
        good,
        Part(pipeline=[resize], dataset=good),
        crops,
        Part(datasets=[good]),
        None,
    ):
        check_linear(model, dict(val_dataloader=dataset))
    for dataset in (bad, Part(dataset=Part(datasets=[good, bad]))):
        with pytest.raises(LaunchError, match='val_dataloader: .* has Resize before LoadAnnot'):
            check_linear(ToyTTA(model), dict(train_dataloader=good, val_dataloader=dataset))
    assert not check_linear(nn.Identity(), dict(val_dataloader=bad))
