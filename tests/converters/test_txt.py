import json

import pytest

from mmdet_contrast.converters import txt_to_coco
from mmdet_contrast.utils.config import LaunchError


def _convert(folders, tmp_path, **kwargs):
    out = tmp_path / 'out.json'
    report = txt_to_coco(*folders, out, **kwargs)
    return json.loads(out.read_text()), report


def test_values(txt, tmp_path):
    folders = txt({'b': 'cat 30 40 20 10\ndog,50,40,100,80\n', 'a': '# none\n\n'})
    coco, report = _convert(folders, tmp_path)
    assert [i['file_name'] for i in coco['images']] == ['a.png', 'b.png']
    assert [
        (a['image_id'], a['category_id'], a['bbox'], a['area']) for a in coco['annotations']
    ] == [
        (2, 1, [20, 35, 20, 10], 200),
        (2, 2, [0, 0, 100, 80], 8000),
    ]
    assert report.kinds == ['image_without_objects'] and report.files(report.kinds[0]) == ['a.txt']


def test_normalized_equals_pixels(txt, tmp_path):
    pixels, _ = _convert(txt({'a': '0 30 40 20 10'}, 'p'), tmp_path, classes=['x'])
    shares, _ = _convert(txt({'a': '0 .3 .5 .2 .125'}, 'n'), tmp_path, classes=['x'],
                         normalized=True)  # fmt: skip
    assert pixels == shares


def test_shares_taken_for_pixels_are_refused(txt, tmp_path):
    with pytest.raises(LaunchError, match='normalized=True'):
        _convert(txt({'a': '0 .3 .5 .2 .1'}), tmp_path)


def test_class_indices(txt, tmp_path):
    folders = txt({'a': '0 30 40 20 10\n1 30 40 22 10\n2 30 40 24 10'})
    coco, report = _convert(folders, tmp_path, classes=('cat', 'dog'))
    assert [a['category_id'] for a in coco['annotations']] == [1, 2]
    assert report.of_kind('unknown_class')[0].detail.startswith('2 at')
    coco, _ = _convert(folders, tmp_path, classes=('2', '1', '0'))
    assert [a['category_id'] for a in coco['annotations']] == [3, 2, 1]


def test_discovered_classes_are_sorted_integers_by_value(txt, tmp_path):
    coco, _ = _convert(txt({'a': '10 30 40 20 10\n9 30 40 20 10'}), tmp_path)
    assert [c['name'] for c in coco['categories']] == ['9', '10']
    coco, _ = _convert(txt({'a': 'b 30 40 20 10\na 30 40 20 10'}, 'two'), tmp_path)
    assert [c['name'] for c in coco['categories']] == ['a', 'b']


def test_class_names_with_blanks_are_taken_when_given(txt, tmp_path):
    folders = txt({'a': 'sea lion 30 40 20 10'})
    coco, _ = _convert(folders, tmp_path, classes=['sea lion'])
    assert len(coco['annotations']) == 1
    _, report = _convert(folders, tmp_path)
    assert report.count('malformed_line') == 1


def _dirt(txt):
    labels, pictures = txt(
        {
            'binary': b'\xff\x00\xfe\x01',
            'clipped': 'cat 95 40 20 10',
            'confidence': 'cat 30 40 20 10 0.9',
            'damaged': 'cat 30 40 20 10',
            'gone': 'cat 30 40 20 10',
            'infinite': 'cat inf 40 20 10',
            'negative': 'cat 30 40 -20 10',
            'no_txt': None,
            'outside': 'cat 300 40 20 10',
            'short': 'cat 30 40',
            'stranger': 'zebra 30 40 20 10',
            'text': 'cat a 40 20 10',
            'thin': 'cat 30 40 0.5 10',
            'tiny': 'cat 30 40 3 10',
            'zero': 'cat 30 40 0 10',
        }
    )
    (pictures / 'gone.png').unlink()
    (pictures / 'damaged.png').write_bytes(b'not a picture')
    (labels / 'classes.txt').write_text('cat\n')
    return labels, pictures


DIRT = {
    'unreadable_annotation': ['binary.txt'],
    'box_clipped': ['clipped.txt'],
    'malformed_line': ['confidence.txt', 'short.txt', 'text.txt'],
    'unreadable_image': ['damaged.png'],
    'missing_image': ['gone.txt'],
    'malformed_number': ['infinite.txt'],
    'box_inverted': ['negative.txt'],
    'missing_annotation': ['no_txt.txt'],
    'box_outside': ['outside.txt'],
    'unknown_class': ['stranger.txt'],
    'box_below_one_pixel': ['thin.txt'],
    'below_min_size': ['tiny.txt'],
    'box_without_area': ['zero.txt'],
}


def test_every_kind_of_dirt_is_reported_by_name_and_nothing_else(txt, tmp_path):
    coco, report = _convert(_dirt(txt), tmp_path, classes=['cat'], min_size=5)
    found = {kind: report.files(kind) for kind in report.kinds if kind != 'image_without_objects'}
    assert found == DIRT
    # Every picture that can be read and has a readable text file stays.
    assert len(coco['images']) == 11
    assert [(a['bbox'], a['iscrowd']) for a in coco['annotations']] == [
        ([85, 35, 15, 10], 0),
        ([28.5, 35, 3, 10], 1),
    ]
    assert report.num_ignored == 1


def test_split(txt, tmp_path):
    folders = txt({'a': 'cat 30 40 20 10', 'b': 'cat 30 40 20 10', 'c.d': 'cat 30 40 20 10'})
    split = tmp_path / 'split.txt'
    for lines in ('c.d\nb.png\n', 'images/b.png\r\n.\\labels\\c.d.txt\r\n'):
        split.write_text(lines)
        coco, report = _convert(folders, tmp_path, split=split)
        assert [i['file_name'] for i in coco['images']] == ['b.png', 'c.d.png']
        assert report.kinds == []


def test_encodings(txt, tmp_path):
    line = 'Käfer 30 40 20 10\n'
    encodings = ('utf-8-sig', 'latin-1', 'utf-16')
    coco, report = _convert(txt({name: line.encode(name) for name in encodings}), tmp_path)
    assert report.per_class == {'Käfer': 1}
    assert report.files('unreadable_annotation') == ['latin-1.txt', 'utf-16.txt']


def test_endings_in_capitals(txt, tmp_path):
    labels, pictures = txt({'a': 'cat 30 40 20 10', 'b': None})
    (labels / 'b.TXT').write_text('cat 30 40 20 10\ncat 30 40 30 10\n')
    coco, report = _convert((labels, pictures), tmp_path)
    assert report.per_class == {'cat': 3} and report.kinds == []
    (labels / 'b.txt').write_text('')
    report = _convert((labels, pictures), tmp_path)[1]
    assert report.files('ambiguous_annotation') == ['b.TXT']


def test_numbers_as_class_names_are_never_taken_for_indices(txt, tmp_path):
    folders = txt({'a': '1 30 40 20 10\n0 30 40 22 10'})
    with pytest.raises(LaunchError, match='labels 0, 1 are not the classes 1, 2'):
        _convert(folders, tmp_path, classes=('1', '2'))
    assert len(_convert(folders, tmp_path, classes=('0', '1'))[0]['annotations']) == 2
    with pytest.raises(LaunchError, match="classes is 'ab'"):
        _convert(folders, tmp_path, classes='ab')
