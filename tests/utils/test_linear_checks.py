"""Data that a linear evaluation would get wrong."""

from types import SimpleNamespace as Part

import pytest
from mmcv.transforms import Compose, LoadImageFromFile
from mmdet.datasets.transforms import LoadAnnotations, PackDetInputs, Resize
from mmengine.model import BaseTTAModel
from torch import nn

from mmdet_contrast.models.selfsup import LinearClassifier
from mmdet_contrast.utils.launch_checks import LaunchError
from mmdet_contrast.utils.linear_checks import check_linear


class TTA(BaseTTAModel):
    def merge_preds(self, data_samples_list):
        raise NotImplementedError


def classifier():
    backbone = dict(type='mmdet.ResNet', depth=18, base_channels=4)
    return LinearClassifier(backbone, num_classes=2, in_channels=32)


def test_linear_evaluation_reads_boxes_right_after_the_image():
    model = classifier()
    read, resize = LoadAnnotations(with_bbox=True), Resize(scale=(8, 8))

    def data(*steps, **kwargs):
        return Part(pipeline=Compose([LoadImageFromFile(), *steps, PackDetInputs()]), **kwargs)

    good, bad = data(read, resize), data(resize, read)
    mixed = Part(pipeline=[resize], dataset=good)
    crops = Part(whole_images=True, dataset=bad)
    empty = Part(pipeline=Compose([]))
    for dataset in (
        good,
        mixed,
        crops,
        empty,
        data(resize),
        Part(datasets=[good, good]),
        None,
    ):
        check_linear(model, dict(val_dataloader=dataset))
    wrapped = Part(dataset=Part(datasets=[good, bad]))
    for dataset in (bad, wrapped, data(read, resize, read)):
        with pytest.raises(LaunchError, match='val_dataloader: .* has Resize before LoadAnnot'):
            check_linear(TTA(model), dict(train_dataloader=good, val_dataloader=dataset))
    check_linear(nn.Identity(), dict(val_dataloader=bad))


def test_linear_evaluation_has_one_list_of_classes():
    model = classifier()
    first, second = (Part(metainfo=dict(classes=names)) for names in (('a', 'b'), ('b', 'a')))
    check_linear(model, dict(train_dataloader=first, val_dataloader=first))
    # of a subset no classes are known
    check_linear(model, dict(train_dataloader=first, val_dataloader=Part()))
    both = dict(train_dataloader=first, val_dataloader=second)
    with pytest.raises(LaunchError, match=r"classes \['a', 'b'\] and val_data.*\['b', 'a'\].*set"):
        check_linear(model, both)
    check_linear(nn.Identity(), both)


def test_concatenated_data_sets_give_a_list_of_metainfo():
    model = classifier()
    names = [dict(classes=('a', 'b'), source=1), dict(classes=('a', 'b'), source=2)]
    data = dict(train_dataloader=Part(metainfo=names), val_dataloader=Part(metainfo=names[0]))
    check_linear(model, data)
    names[1]['classes'] = ('b', 'a')
    with pytest.raises(LaunchError, match=r"datasets\[1\] has the classes \['b', 'a'\] and val"):
        check_linear(model, data)
