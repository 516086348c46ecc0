"""Renaming keys by prefix: order, borders, refusals, and files."""

import os

import pytest
import torch

from mmdet_contrast.converters.coco import ConversionError
from mmdet_contrast.converters.keys import rename_checkpoint, rename_keys


def test_strip_map_and_keep_in_this_order():
    given = {'module.net.w': 1, 'module.net.b': 2, 'module.ema.w': 3}
    renamed, report = rename_keys(given, ['module.'], {'net': 'backbone'}, ['backbone'])
    assert renamed == {'backbone.w': 1, 'backbone.b': 2}
    assert report.renamed == {'module.net.w': 'backbone.w', 'module.net.b': 'backbone.b'}
    assert report.dropped == ['module.ema.w'] and report.unchanged == []
    assert list(given) == ['module.net.w', 'module.net.b', 'module.ema.w']


def test_prefixes_end_at_a_dot():
    given = {'module.w': 1, 'module_list.w': 2}
    for prefix in ('module', 'module.'):
        assert rename_keys(given, [prefix])[0] == {'w': 1, 'module_list.w': 2}
    assert rename_keys(given, rename={'module_list': 'm'})[0] == {'module.w': 1, 'm.w': 2}


def test_swap_and_longest_prefix():
    given = {'a.w': 1, 'b.w': 2, 'b.c.w': 3}
    assert rename_keys(given, rename={'a': 'b', 'b': 'a', 'b.c': 'd'})[0] == {
        'b.w': 1, 'a.w': 2, 'd.w': 3,
    }  # fmt: skip


def test_prefix_in_front_of_all_and_whole_keys():
    assert rename_keys({'w': 1}, rename={'': 'net'})[0] == {'net.w': 1}
    assert rename_keys({'w': 1}, rename={'w': 'v'})[0] == {'v': 1}
    assert rename_keys({'a.w': 1}, rename={'a': ''})[0] == {'w': 1}


@pytest.mark.parametrize(
    'kwargs, message',
    [
        (dict(strip=['modul']), r"strip: prefix 'modul' matches no key; .* module \(2\), b "),
        (dict(rename={'x': 'y'}), "map: prefix 'x' matches no key"),
        (dict(keep=['x']), "keep: prefix 'x' matches no key"),
        (dict(strip=['module', 'b']), "keys 'module.a' and 'b.a' would both become 'a'"),
    ],
)
def test_refusals(kwargs, message):
    with pytest.raises(ConversionError, match=message):
        rename_keys({'module.a': 1, 'module.c': 2, 'b.a': 3}, **kwargs)


def test_file(tmp_path):
    source, target = str(tmp_path / 'in.pth'), str(tmp_path / 'new' / 'out.pth')
    weights = {'module.w': torch.arange(3.0)}
    torch.save(dict(state_dict=weights, meta=dict(epoch=3), optimizer=dict(lr=1)), source)
    report = rename_checkpoint(source, target, ['module'])
    written = torch.load(target, weights_only=True)
    assert written['meta'] == dict(epoch=3) and set(written) == {'meta', 'state_dict'}
    assert torch.equal(written['state_dict']['w'], weights['module.w'])
    assert report.left_out == ['optimizer'] and 'left out: optimizer' in str(report)
    assert '  module.w -> w' in str(report)
    assert os.listdir(tmp_path / 'new') == ['out.pth']


def test_nothing_is_left_behind_when_writing_fails(tmp_path, monkeypatch):
    torch.save({'module.w': torch.ones(1)}, tmp_path / 'in.pth')
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'out.pth').write_text('the old one')

    def fail(*_, **__):
        raise OSError('disk full')

    monkeypatch.setattr(torch, 'save', fail)
    with pytest.raises(OSError, match='disk full'):
        rename_checkpoint(str(tmp_path / 'in.pth'), str(tmp_path / 'out' / 'out.pth'), ['module'])
    assert os.listdir(tmp_path / 'out') == ['out.pth']
    assert (tmp_path / 'out' / 'out.pth').read_text() == 'the old one'
