"""Sources, and the logits of classes against loops."""

import pytest
import torch
from torch import nn

from mmdet_contrast.models.distill import Source, highest_scores, record, select_classes


def test_sources_are_modules_or_items_of_what_they_return():
    class Pyramid(nn.Module):
        def forward(self, x):
            return x, 2 * x

    model = nn.Sequential(nn.Identity(), Pyramid())
    sources = [Source.parse(text) for text in ('0', '1', '1[1]')]
    x = torch.ones(1, 2, 3, 3)
    with record(model, sources) as outputs:
        model(x)
    model(5 * x)
    maps = [source.maps(outputs) for source in sources]
    assert [[float(m.mean()) for m in each] for each in maps] == [[1], [1, 2], [2]]
    assert Source.parse('bbox_head.reg') == ('bbox_head.reg', 'bbox_head', 1)
    with pytest.raises(ValueError, match="no module 'neck'"), record(model, [Source.parse('neck')]):
        pass


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
