"""Classes by name and their logits, against loops."""

import pytest
import torch

from mmdet_contrast.models.distill import highest_scores, map_classes, select_classes


def test_map_classes_by_name():
    assert map_classes(('cat', 'dog'), ('bird', 'dog', 'cat')) == ([0, 1], [2, 1])
    assert map_classes(('a', 'b'), ('b', 'c'), dict(a=None)) == ([1], [0])
    assert map_classes(('a', 'b'), ('c', 'b'), dict(a='c')) == ([0, 1], [0, 1])


@pytest.mark.parametrize('anchors', [1, 3])
@pytest.mark.parametrize('index', [[0, 1, 2, 3], [2, 0], [3]])
def test_select_classes(anchors, index):
    logits = torch.randn(2, anchors * 4, 3, 5)
    selected = select_classes(logits, 4, index)
    assert selected.shape == (2 * anchors, len(index), 3, 5)
    for image in range(2):
        for anchor in range(anchors):
            for place, wanted in enumerate(index):
                expected = logits[image, anchor * 4 + wanted]
                assert torch.equal(selected[image * anchors + anchor, place], expected)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_highest_scores(dtype):
    logits = torch.randn(2, 3 * 4, 2, 3).to(dtype)
    scores = highest_scores(logits, 4)
    assert scores.dtype == torch.float32 and scores.shape == (6, 2, 3)
    for image in range(2):
        for anchor in range(3):
            each = logits[image, anchor * 4 : anchor * 4 + 4].float().sigmoid()
            torch.testing.assert_close(scores[image * 3 + anchor], each.max(dim=0).values)
