"""Boxes and images as they are written, and the report of what was not taken as it stood."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet_contrast.converters.coco import (
    ConversionError,
    ConversionReport,
    RawBox,
    RawImage,
    assemble,
    progress,
    read_split,
    save,
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


def test_read_split(tmp_path):
    path = tmp_path / 'train.txt'
    path.write_text('\ufeffmy image\r\nb  1\nc -1\n\na\nb 0\n', encoding='utf-8')
    report = ConversionReport()
    assert read_split(path, report) == ['a', 'b', 'c', 'my image']
    assert report.files('duplicate_image') == ['train.txt'] and report.num_problems == 1


FOLDER = {
    'b': 'b.jpg',
    'photo': 'photo.jpg',
    'photo 1': 'photo 1.jpg',
    'my  image': 'my  image.png',
    'v1.0': 'v1.0.jpg',
    'a/photo': 'a/photo.jpg',
    'no_image': None,
}


@pytest.mark.parametrize(
    'line, name',
    [
        ('photo.jpg', 'photo'),
        ('JPEGImages/photo.jpg', 'photo'),
        ('./photo', 'photo'),
        ('..\\JPEGImages\\photo.xml', 'photo'),
        ('/data/voc/JPEGImages/photo.jpg ', 'photo'),
        ('C:\\voc\\a\\photo.jpg', 'a/photo'),
        ('images/a/photo', 'a/photo'),
        ('photo 1', 'photo 1'),
        ('JPEGImages/photo 1.jpg', 'photo 1'),
        ('photo 1 -1', 'photo 1'),
        ('JPEGImages/photo.jpg  -1', 'photo'),
        ('my  image', 'my  image'),
        ('v1.0', 'v1.0'),
        ('v1.0 0', 'v1.0'),
        ('no_image.xml', 'no_image'),
        ('JPEGImages/photo.jpg Annotations/photo.xml', 'photo'),
    ],
)
def test_a_line_of_a_split_names_an_image_first(tmp_path, line, name):
    path, report = tmp_path / 'train.txt', ConversionReport()
    path.write_bytes(f'\ufeff\r\n{line}\r\n'.encode())
    assert read_split(path, report, FOLDER) == [name]
    assert report.findings == []


@pytest.mark.parametrize(
    'lines, names, kind',
    [
        ('photo.png', ['photo'], 'file_name_differs'),
        ('b\nphoto 0', ['b', 'photo'], 'doubtful_line'),
        ('photo 1\nphoto 0', ['photo', 'photo 1'], 'doubtful_line'),
        ('photo\nJPEGImages/photo.jpg', ['photo'], 'duplicate_image'),
        ('v2.0', ['v2.0'], None),
        ('c/lost.jpg 1', ['c/lost'], None),
        ('photo.jpg b.jpg', ['photo.jpg b'], None),
        ('x/photo.jpg x/b.jpg', ['x/photo.jpg x/b'], None),
    ],
)
def test_doubtful_and_unknown_lines_of_a_split(tmp_path, lines, names, kind):
    path, report = tmp_path / 'train.txt', ConversionReport()
    path.write_text(lines)
    assert read_split(path, report, FOLDER) == names
    assert report.files(kind) == (['train.txt'] if kind else [])
    assert report.num_problems == bool(kind)


def test_split_in_other_encodings(tmp_path):
    path, report = tmp_path / 'train.txt', ConversionReport()
    path.write_text('photo\nb\n', encoding='utf-16')
    assert read_split(path, report, FOLDER) == ['b', 'photo']
    for encoding in ('gbk', 'utf-16-le'):
        path.write_text('照片\n', encoding=encoding)
        with pytest.raises(ConversionError, match='train.txt is not text in UTF-8'):
            read_split(path, report, FOLDER)


@pytest.mark.parametrize('classes', ['cat', ['cat', 'dog', 'cat']])
def test_classes_must_be_a_list_of_different_names(classes):
    with pytest.raises(ConversionError, match='give a list of names, each once'):
        assemble([], classes, ConversionReport())


def test_without_an_image_only_the_report_is_written(tmp_path):
    report = ConversionReport()
    report.add('unreadable_image', 'a.jpg', 'cut off', 'image left out')
    report.add('unreadable_image', 'b.jpg', 'cut off', 'image left out')
    report.add('difficult', 'c.xml', 'cat', 'ignored: iscrowd=1')
    coco = assemble([], ['cat'], report)
    with pytest.raises(ConversionError) as caught:
        save(coco, report, tmp_path / 'out.json', tmp_path / 'report.json')
    assert str(caught.value) == (
        'no image is left, so no annotations are written: 2 x unreadable image (a.jpg: cut off).'
    )
    assert [path.name for path in tmp_path.iterdir()] == ['report.json']


def test_progress_is_short_and_on_standard_error_only(capsys):
    assert list(progress(range(5000), 'reading')) == list(range(5000))
    printed = capsys.readouterr()
    assert printed.out == '' and 'reading' in printed.err and len(printed.err) < 300


def _report(**kwargs):
    report = ConversionReport(['cat', 'dog'], 'out.json', **kwargs)
    report.num_images, report.num_boxes = 2, 3
    report.per_class.update(cat=3)
    return report


def test_table_names_the_files_and_the_values():
    report = _report()
    for i in range(5):
        report.add('box_outside', f'{4 - i}.xml', f'cat at ({i}, 0, 1, 1)', 'left out')
    report.add('difficult', 'n.xml', 'cat', 'ignored: iscrowd=1')
    text = str(report)
    assert '0.xml, 1.xml, 2.xml … and 2 more' in text
    assert '3.xml: box_outside: cat at (1, 0, 1, 1)' in text
    assert report.kinds == ['box_outside', 'difficult']
    assert (report.num_problems, report.count('box_outside')) == (5, 5)
    assert report.files('box_outside') == [f'{i}.xml' for i in range(5)]
