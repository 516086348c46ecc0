"""Sources."""

import pytest
import torch
from torch import nn

from mmdet_contrast.models.distill import Source, record


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
    # a head runs a layer on every level
    with record(model, sources[:2]) as outputs:
        for level in (x, 3 * x):
            model(level)
    maps = [source.maps(outputs) for source in sources[:2]]
    assert [[float(m.mean()) for m in each] for each in maps] == [[1, 3], [1, 2, 3, 6]]
    with pytest.raises(ValueError, match="source '1' is a module that the detector does not call"):
        sources[1].maps({})
    assert Source.parse('bbox_head.reg') == ('bbox_head.reg', 'bbox_head', 1)
    assert Source.parse('bbox_head.centerness') == ('bbox_head.centerness', 'bbox_head', 2)
    with pytest.raises(ValueError, match="no module 'neck'"), record(model, [Source.parse('neck')]):
        pass
