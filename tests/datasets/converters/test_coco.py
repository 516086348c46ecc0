import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmdet_contrast.datasets.converters import ConversionReport, _coco
from mmdet_contrast.datasets.converters._coco import (
    RawBox,
    RawImage,
    assemble,
    image_size,
    read_split,
    write_json,
)


def _one(corners, **kwargs):
    report = ConversionReport()
    coco = assemble([RawImage('a.jpg', 100, 80, [RawBox('x', corners)], 'a')], ['x'], report,
                    **kwargs)  # fmt: skip
    return coco['annotations'], report


@pytest.mark.parametrize(
    'corners, kind',
    [
        ((10, 10, 10, 20), 'box_without_area'),
        ((20, 10, 10, 20), 'box_inverted'),
        ((100, 10, 120, 20), 'box_outside'),
        ((-9, 10, 0, 20), 'box_outside'),
        ((10, 10, 10.5, 20), 'box_below_one_pixel'),
        ((99.5, 10, 120, 20), 'box_below_one_pixel'),
        ((float('nan'), 10, 20, 20), 'malformed_number'),
        ((0, 0, float('inf'), 20), 'malformed_number'),
    ],
)
def test_boxes_that_cannot_be_written_are_reported_by_name(corners, kind):
    annotations, report = _one(corners)
    assert annotations == []
    assert report.files(kind) == ['a']
    assert report.count('image_without_objects') == 1
    assert report.num_images == 1


@pytest.mark.parametrize(
    'corners, bbox, kind',
    [
        ((0, 0, 100, 80), [0, 0, 100, 80], None),
        ((-1, 2, 50, 81), [0, 2, 50, 78], 'box_snapped'),
        ((-7.5, 2, 50, 60), [0, 2, 50, 58], 'box_clipped'),
        ((50, 70, 130, 90), [50, 70, 50, 10], 'box_clipped'),
    ],
)
def test_boxes_that_leave_the_picture_are_clipped(corners, bbox, kind):
    annotations, report = _one(corners)
    assert annotations[0]['bbox'] == bbox
    assert annotations[0]['area'] == bbox[2] * bbox[3]
    assert report.kinds == ([kind] if kind else [])


def test_without_clip_the_box_stays_and_is_reported():
    annotations, report = _one((-7, 2, 50, 60), clip=False)
    assert annotations[0]['bbox'] == [-7, 2, 57, 58]
    assert report.of_kind('box_clipped')[0].action == 'kept'


def test_min_size_ignores_but_keeps():
    annotations, report = _one((0, 0, 50, 9.5), min_size=10)
    assert annotations[0]['iscrowd'] == 1 and 'ignore' not in annotations[0]
    assert report.num_ignored == 1 and report.count('below_min_size') == 1
    assert report.num_problems == 0
    assert _one((0, 0, 50, 10), min_size=10)[0][0]['iscrowd'] == 0


def test_duplicate_box_and_duplicate_image():
    boxes = [RawBox('x', (0, 0, 9, 9)), RawBox('y', (0, 0, 9, 9)), RawBox('x', (0, 0, 9, 9))]
    images = [RawImage('a.jpg', 50, 50, boxes, 'a.xml'), RawImage('a.jpg', 50, 50, [], 'b.xml')]
    report = ConversionReport()
    coco = assemble(images, ['x', 'y'], report)
    assert len(coco['images']) == 1 and len(coco['annotations']) == 3
    assert report.count('duplicate_box') == 1
    assert report.files('duplicate_image') == ['b.xml']


corner = st.integers(-30, 130)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from('abc'), corner, corner, corner, corner), max_size=6, unique=True
    ),
    st.randoms(use_true_random=False),
)
def test_every_box_is_written_or_reported_and_order_of_images_does_not_matter(items, random):
    images = [
        RawImage(f'{i}.jpg', 100, 80, [RawBox(n, (x, y, u, v))], str(i))
        for i, (n, x, y, u, v) in enumerate(items)
    ]
    report, shuffled_report = ConversionReport(), ConversionReport()
    coco = assemble(images, ['a', 'b'], report)
    left_out = [f for f in report.findings if f.action == 'left out']
    assert len(coco['annotations']) + len(left_out) == len(items)
    for annotation in coco['annotations']:
        x, y, w, h = annotation['bbox']
        assert x >= 0 and y >= 0 and w >= 1 and h >= 1 and x + w <= 100 and y + h <= 80
    random.shuffle(images)
    assert assemble(images, ['a', 'b'], shuffled_report) == coco
    assert shuffled_report.to_dict() == report.to_dict()


@settings(deadline=None)
@given(corner, corner, st.integers(1, 60), st.integers(1, 60), st.sampled_from([2, 4, 8]))
def test_scaling_picture_and_boxes_scales_the_annotations(x, y, w, h, factor):
    def convert(f):
        box = RawBox('a', tuple(f * v for v in (x, y, x + w, y + h)))
        image = RawImage('i', 100 * f, 80 * f, [box], 'i')
        return assemble([image], ['a'], ConversionReport())['annotations']

    small, large = convert(1), convert(factor)
    assert [[v * factor for v in a['bbox']] for a in small] == [a['bbox'] for a in large]


def test_write_json_replaces_atomically(tmp_path, monkeypatch):
    path = tmp_path / 'deep' / 'x.json'
    write_json(path, {'old': 1})

    def crash(*args, **kwargs):
        raise OSError('disk full')

    for module, name in ((_coco.json, 'dump'), (_coco.os, 'fsync'), (_coco.os, 'replace')):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, crash)
            with pytest.raises(OSError, match='disk full'):
                write_json(path, {'new': 2})
        assert json.loads(path.read_text()) == {'old': 1}
        assert os.listdir(path.parent) == ['x.json']
    write_json(path, {'new': 2})
    assert json.loads(path.read_text()) == {'new': 2}
    with pytest.raises(ValueError):
        write_json(path, {'bad': float('nan')})
    assert json.loads(path.read_text()) == {'new': 2}


def test_image_size_follows_the_cameras_rotation(tmp_path):
    import cv2

    path = tmp_path / 'turned.jpg'
    image = Image.new('RGB', (60, 40))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(path, exif=exif)
    width, height, orientation = image_size(path, verify=True)
    assert (width, height, orientation) == (40, 60, 6)
    assert cv2.imread(str(path)).shape[:2] == (height, width)


def test_truncated_image_is_found_only_when_verified(tmp_path):
    path = tmp_path / 'a.png'
    Image.effect_noise((60, 40), 50).save(path)
    path.write_bytes(path.read_bytes()[:-900])
    assert image_size(path, verify=False)[:2] == (60, 40)
    with pytest.raises(OSError):
        image_size(path, verify=True)


def test_read_split(tmp_path):
    path = tmp_path / 'train.txt'
    path.write_text('\ufeffa\r\nb  1\nc -1\n\nmy image\n', encoding='utf-8')
    assert read_split(path) == ['a', 'b', 'c', 'my image']
