"""Boxes and images as they are written, and the report of what was not taken as it stood."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet_contrast.converters.coco import ConversionReport, RawBox, RawImage, write_coco
from mmdet_contrast.utils.config import LaunchError


@pytest.fixture(scope='module')
def assemble(tmp_path_factory):
    out = tmp_path_factory.mktemp('coco') / 'out.json'

    def assemble(images, classes, report, **kwargs):
        write_coco(images, classes, report, out, **kwargs)
        return json.loads(out.read_text())

    return assemble


@pytest.fixture
def one(assemble):
    def one(corners, **kwargs):
        report = ConversionReport()
        image = RawImage('a.jpg', 100, 80, [RawBox('x', corners)], 'a')
        return assemble([image], ['x'], report, **kwargs)['annotations'], report

    return one


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
def test_boxes_that_cannot_be_written_are_reported_by_name(one, corners, kind):
    annotations, report = one(corners)
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
def test_boxes_that_leave_the_picture_are_clipped(one, corners, bbox, kind):
    annotations, report = one(corners)
    assert annotations[0]['bbox'] == bbox
    assert annotations[0]['area'] == bbox[2] * bbox[3]
    assert report.kinds == ([kind] if kind else [])


def test_min_size_ignores_but_keeps(one):
    annotations, report = one((0, 0, 50, 9.5), min_size=10)
    assert annotations[0]['iscrowd'] == 1 and 'ignore' not in annotations[0]
    assert report.num_ignored == 1 and report.count('below_min_size') == 1
    assert report.problems == []
    assert one((0, 0, 50, 10), min_size=10)[0][0]['iscrowd'] == 0


def test_duplicate_box_and_duplicate_image(assemble):
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
        st.tuples(st.sampled_from('abc'), corner, corner, corner, corner),
        min_size=1,
        max_size=6,
        unique=True,
    ),
    st.randoms(use_true_random=False),
)
def test_every_box_is_written_or_reported_and_order_of_images_does_not_matter(
    assemble, items, random
):
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


@pytest.mark.parametrize('classes', ['cat', ['cat', 'dog', 'cat']])
def test_classes_must_be_a_list_of_different_names(assemble, classes):
    with pytest.raises(LaunchError, match='give a list of names, each once'):
        assemble([], classes, ConversionReport())


def test_table_counts_and_names_the_files_and_the_values():
    report = ConversionReport('out.json')
    for i in range(5):
        report.add('box_outside', f'{4 - i}.xml', f'cat at ({i}, 0, 1, 1)', 'left out')
    report.add('difficult', 'n.xml', 'cat', 'ignored: iscrowd=1')
    text = str(report)
    assert '3.xml: box_outside: cat at (1, 0, 1, 1)' in text and '-> out.json' in text
    assert [line.split() for line in text.splitlines() if line.startswith('| box_outside')] == [
        '| box_outside | problem | 5 | 5 | left out |'.split()
    ]
    assert report.kinds == ['box_outside', 'difficult']
    assert (len(report.problems), report.count('box_outside')) == (5, 5)
    assert report.files('box_outside') == [f'{i}.xml' for i in range(5)]
