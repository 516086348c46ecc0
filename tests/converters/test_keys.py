"""Renaming keys by prefix: order, borders, refusals, and files."""

import os

import pytest
import torch

from mmdet_contrast.converters.keys import rename_checkpoint, rename_keys
from mmdet_contrast.utils.config import LaunchError


def test_strip_map_and_keep_in_this_order():
    given = {'module.net.w': 1, 'module.net.b': 2, 'module.ema.w': 3}
    renamed, moved = rename_keys(given, ['module.'], {'net': 'backbone'}, ['backbone'])
    assert renamed == {'backbone.w': 1, 'backbone.b': 2}
    assert moved == {
        'module.net.w': 'backbone.w', 'module.net.b': 'backbone.b', 'module.ema.w': None,
    }  # fmt: skip
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
        (dict(strip=['module', 'b']), "key 'b.a' would become 'a', as another one"),
    ],
)
def test_refusals(kwargs, message):
    with pytest.raises(LaunchError, match=message):
        rename_keys({'module.a': 1, 'module.c': 2, 'b.a': 3}, **kwargs)


def test_file(tmp_path):
    source, target = str(tmp_path / 'in.pth'), str(tmp_path / 'new' / 'out.pth')
    weights = {'module.w': torch.arange(3.0)}
    torch.save(dict(state_dict=weights, meta=dict(epoch=3), optimizer=dict(lr=1)), source)
    moved = rename_checkpoint(source, target, ['module'])
    written = torch.load(target, weights_only=True)
    assert written['meta'] == dict(epoch=3) and set(written) == {'meta', 'state_dict'}
    assert torch.equal(written['state_dict']['w'], weights['module.w'])
    assert moved == {'module.w': 'w'}
    assert os.listdir(tmp_path / 'new') == ['out.pth']
