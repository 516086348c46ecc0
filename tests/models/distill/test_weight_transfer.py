"""Classes by name, and a start from the teacher's weights."""

import pytest
import torch
from torch import nn

from mmdet_contrast.models.distill import map_classes, transfer_weights


def test_map_classes_by_name():
    assert map_classes(('cat', 'dog'), ('bird', 'dog', 'cat')) == [2, 1]


@pytest.mark.parametrize('teacher', [('dog',), ('cat', 'cat')])
def test_classes_without_a_counterpart_are_refused(teacher):
    with pytest.raises(ValueError, match='have to be different ones of the student'):
        map_classes(teacher, ('cat', 'bird'))


def network(classes, width=4):
    model = nn.Sequential()
    model.add_module('conv', nn.Conv2d(3, width, 1))
    model.add_module('norm', nn.BatchNorm2d(width))
    model.add_module('cls', nn.Conv2d(width, classes, 1))
    return model


def test_tensors_of_another_shape_are_named_apart():
    teacher, student = network(2), network(3)
    student.add_module('extra', nn.Conv2d(1, 1, 1))
    student.conv = nn.Conv2d(5, 4, 1)
    report = transfer_weights(student, teacher.state_dict(), [0, 2], 3)
    assert report.by_class == ['cls.weight', 'cls.bias']
    assert report.kept == ['extra.weight', 'extra.bias'] and report.unlike == ['conv.weight']
    assert '1 more (conv.weight) left as initialised because' in str(report)
    assert torch.equal(student.cls.bias[[0, 2]], teacher.cls.bias)


def test_counters_alone_are_no_start():
    with pytest.raises(ValueError, match='of the same architecture'):
        transfer_weights(network(3, width=5), network(2).state_dict(), [0, 1], 3)


def test_as_many_classes_in_another_order_are_refused():
    """No shape tells which rows belong to classes."""
    with pytest.raises(ValueError, match='2 classes each, but not the same ones'):
        transfer_weights(network(2), network(2).state_dict(), [1, 0], 2)


def test_the_same_classes_are_copied_whole():
    teacher, student = network(2), network(2)
    transfer_weights(student, teacher.state_dict(), [0, 1], 2)
    assert all(torch.equal(v, teacher.state_dict()[k]) for k, v in student.state_dict().items())
