import hashlib
import json
import runpy
import sys
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import shapes
from pycocotools import mask as coco_mask
from shape_drawing import OUTLINES, TEXTURES, draw_picture
from shapes import SHAPES_CLASSES, make_shapes

COUNTS = {'train': 60, 'val': 20}


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    return make_shapes(tmp_path_factory.mktemp('shapes') / 'a', COUNTS, num_classes=6, seed=3)


def _digest(root):
    files = sorted(p for p in Path(root).rglob('*') if p.is_file())
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def _load(path):
    return json.loads(Path(path).read_text())


def test_class_names():
    assert len(SHAPES_CLASSES) == len(set(SHAPES_CLASSES)) == 20
    textures, outlines = zip(*(name.split('_') for name in SHAPES_CLASSES))
    # The inside alone tells the class; the outline alone among ten.
    assert set(textures) == set(TEXTURES) and len(set(textures)) == 20
    assert set(outlines[:10]) == set(outlines[10:]) == set(OUTLINES)


def test_layout(made):
    assert set(made) == {'root', 'train', 'val'}
    for split, count in COUNTS.items():
        coco = _load(made[split])
        assert [c['name'] for c in coco['categories']] == list(SHAPES_CLASSES[:6])
        assert [c['id'] for c in coco['categories']] == list(range(1, 7))
        assert len(coco['images']) == count
        for image in coco['images']:
            picture = cv2.imread(str(Path(made['root']) / split / image['file_name']))
            assert picture.shape == (image['height'], image['width'], 3) == (128, 128, 3)


def test_pictures_hold_what_the_class_says(made):
    coco = _load(made['train'])
    numbers = Counter(a['image_id'] for a in coco['annotations'])
    assert 1 <= sum(i['id'] not in numbers for i in coco['images']) <= 6
    assert any(a['bbox'][2] * a['bbox'][3] > 0.8 * 128**2 for a in coco['annotations'])
    assert any(a['iscrowd'] for a in coco['annotations'])
    sizes = [max(a['bbox'][2:]) for a in coco['annotations']]
    assert min(sizes) < 16 and max(sizes) == 128
    assert set(a['category_id'] for a in coco['annotations']) == set(range(1, 7))


def test_regions_agree_with_each_other(made):
    for annotation in _load(made['train'])['annotations']:
        mask = coco_mask.decode(annotation['segmentation'])
        ys, xs = np.nonzero(mask)
        box = [xs.min(), ys.min(), xs.max() + 1 - xs.min(), ys.max() + 1 - ys.min()]
        assert annotation['bbox'] == box
        assert annotation['area'] == mask.sum() > 0


def test_annotations_agree_with_the_drawn_pixels(monkeypatch):
    """Change the colours of one class's texture: only pixels of its objects may change."""
    classes = [('disc', 'striped'), ('square', 'dotted'), ('star', 'meshed')]
    monkeypatch.setattr(
        'shape_drawing._finish',
        lambda canvas, rng: np.clip(canvas, 0, 255).astype(np.uint8),
    )
    seen = 0
    for index in range(12):
        before, objects = draw_picture(classes, (128, 128), 1, 2, index)
        with monkeypatch.context() as patch:
            striped = TEXTURES['striped']
            patch.setitem(TEXTURES, 'striped', lambda *a: 1 - striped(*a))  # noqa: B023
            after, _ = draw_picture(classes, (128, 128), 1, 2, index)
        changed = np.abs(before.astype(int) - after).max(2) > 24
        mask = np.zeros((128, 128), np.uint8)
        for item in objects:
            if item.label == 0:
                mask |= item.mask.astype(np.uint8)
                seen += 1
                assert changed[item.mask].mean() > 0.4
        # The rim is blended over one pixel.
        assert not changed[cv2.dilate(mask, np.ones((3, 3))) == 0].any()
    assert seen >= 5


def test_same_arguments_give_the_same_bytes(made, tmp_path):
    again = make_shapes(tmp_path / 'b', COUNTS, num_classes=6, seed=3)
    assert _digest(again['root']) == _digest(made['root'])


def test_a_picture_depends_on_seed_split_and_number_alone(made, tmp_path):
    more = make_shapes(tmp_path / 'b', {'val': 8, 'train': 3}, num_classes=6, seed=3)
    first, second = _digest(made['root']), _digest(more['root'])
    pictures = [name for name in second if name.endswith('.jpg')]
    assert len(pictures) == 11
    assert all(first[name] == second[name] for name in pictures)
    ours = [a for a in _load(more['val'])['annotations']]
    assert ours == [a for a in _load(made['val'])['annotations'] if a['image_id'] <= 8]
    other = _digest(make_shapes(tmp_path / 'c', {'val': 3}, seed=4)['root'])
    assert not any(first[name] == other[name] for name in other if name.endswith('.jpg'))
    assert first['train/000000.jpg'] != first['val/000000.jpg']


def test_up_to_date_data_is_left_alone_and_anything_else_made_anew(tmp_path, monkeypatch):
    calls = []
    write = shapes._write_split
    monkeypatch.setattr(shapes, '_write_split', lambda *args: calls.append(1) or write(*args))

    def make(**kwargs):
        before = len(calls)
        paths = make_shapes(tmp_path / 'a', {'train': 4}, **kwargs)
        return len(calls) - before, paths

    assert make()[0] == 1
    whole = _digest(tmp_path / 'a')
    assert make()[0] == 0
    assert make(seed=1)[0] == 1
    assert make()[0] == 1
    assert _digest(tmp_path / 'a') == whole
    for damage in ('train/000002.jpg', 'annotations/instances_train.json'):
        (tmp_path / 'a' / damage).unlink()
        assert make()[0] == 1
        assert _digest(tmp_path / 'a') == whole
    (tmp_path / 'a' / 'shapes.json').write_text('{"comp')
    assert make()[0] == 1
    assert _digest(tmp_path / 'a') == whole


def test_an_interrupted_run_is_made_anew(tmp_path, monkeypatch):
    def crash(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shapes, '_region', crash)
        with pytest.raises(KeyboardInterrupt):
            make_shapes(tmp_path / 'a', {'train': 3})
    paths = make_shapes(tmp_path / 'a', {'train': 3})
    assert _digest(paths['root']) == _digest(make_shapes(tmp_path / 'b', {'train': 3})['root'])


def test_other_peoples_files_are_not_touched(tmp_path):
    (tmp_path / 'annotations').mkdir()
    mine = tmp_path / 'annotations' / 'instances_train.json'
    mine.write_text('mine')
    with pytest.raises(FileExistsError, match='not a generated data set'):
        make_shapes(tmp_path, {'train': 2})
    assert mine.read_text() == 'mine'


def _texture(name, seed):
    y, x = np.mgrid[:64, :64] / 16 - 2
    rng = np.random.default_rng(seed)
    phase = rng.uniform(0, 1, 2)
    r, a = np.hypot(x, y), np.arctan2(y, x)
    values = TEXTURES[name](x + phase[0] + 64, y + phase[1] + 64, r, a, rng)
    return np.asarray(values, np.float32)


@pytest.mark.parametrize('name', sorted(TEXTURES))
def test_textures_show_both_colours(name):
    values = _texture(name, 0)
    assert values.shape == (64, 64) and set(np.unique(values)) == {0.0, 1.0}
    assert 0.08 < values.mean() < 0.92


def test_colour_does_not_tell_the_class(tmp_path):
    """The mean colour of a class's objects is the same for all, within the noise."""
    classes = [('disc', 'striped'), ('square', 'checkered'), ('heart', 'zigzag')]
    colours = {label: [] for label in range(3)}
    for index in range(150):
        picture, objects = draw_picture(classes, (64, 64), 0, 9, index)
        for item in objects:
            colours[item.label].append(picture[item.mask].mean(0))
    means = np.array([np.mean(c, 0) for c in colours.values()])
    spread = np.array([np.std(c, 0) for c in colours.values()]).min()
    assert np.abs(means - means.mean(0)).max() < 0.5 * spread


def test_program(tmp_path, monkeypatch, capsys):
    path = str(Path(shapes.__file__).with_name('make_shapes.py'))
    arguments = ['--train', '4', '--val', '2', '--test', '0', '--size', '64', '48']
    monkeypatch.setattr(sys, 'argv', [path, str(tmp_path / 'a'), *arguments])
    runpy.run_path(path, run_name='__main__')
    printed = capsys.readouterr()
    # the progress goes to the other stream, and is short where that is a file
    lines = printed.out.splitlines()
    assert [line.split(':')[0] for line in lines] == ['root', 'train', 'val']
    assert '4/4' in printed.err and len(printed.err) < 500
    expected = make_shapes(tmp_path / 'b', {'train': 4, 'val': 2}, image_size=(64, 48))
    assert _digest(tmp_path / 'a') == _digest(expected['root'])
