import json
import os
from pathlib import Path

import pytest

from mmdet_contrast.converters import voc_to_coco
from mmdet_contrast.utils.config import LaunchError

CAT = {'name': 'cat', 'box': (11, 21, 50, 60)}
DOG = {'name': 'dog', 'box': (1, 1, 100, 80)}


def _convert(root, tmp_path, **kwargs):
    out = tmp_path / 'out.json'
    report = voc_to_coco(root, out, **kwargs)
    return json.loads(out.read_text()), report


def test_values(voc, tmp_path):
    coco, report = _convert(voc({'b': [CAT, DOG], 'a': [DOG]}), tmp_path)
    assert [c['name'] for c in coco['categories']] == ['cat', 'dog']
    assert [c['id'] for c in coco['categories']] == [1, 2]
    assert coco['images'] == [
        {'id': 1, 'file_name': 'a.jpg', 'width': 100, 'height': 80},
        {'id': 2, 'file_name': 'b.jpg', 'width': 100, 'height': 80},
    ]
    boxes = [(a['id'], a['image_id'], a['category_id'], a['bbox']) for a in coco['annotations']]
    assert boxes == [
        (1, 1, 2, [0, 0, 99, 79]),
        (2, 2, 1, [10, 20, 39, 39]),
        (3, 2, 2, [0, 0, 99, 79]),
    ]
    assert [a['area'] for a in coco['annotations']] == [99 * 79, 39 * 39, 99 * 79]
    assert report.findings == []
    assert (report.num_images, report.num_boxes, dict(report.per_class)) == (
        2, 3, {'cat': 1, 'dog': 2},
    )  # fmt: skip


@pytest.mark.parametrize(
    'convention, bbox',
    [
        ('minus_one', [10, 20, 39, 39]),
        ('inclusive', [10, 20, 40, 40]),
        ('zero_based', [11, 21, 39, 39]),
    ],
)
def test_conventions(voc, tmp_path, convention, bbox):
    coco, _ = _convert(voc({'a': [CAT]}), tmp_path, convention=convention)
    assert coco['annotations'][0]['bbox'] == bbox


@pytest.mark.parametrize('difficult, crowd', [('ignore', [1, 0]), ('keep', [0, 0])])
def test_difficult(voc, tmp_path, difficult, crowd):
    root = voc({'a': [{**CAT, 'difficult': 1}, {**DOG, 'difficult': 0}]})
    coco, report = _convert(root, tmp_path, difficult=difficult)
    assert [a['iscrowd'] for a in coco['annotations']] == crowd
    assert all('ignore' not in a for a in coco['annotations'])
    assert report.files('difficult') == ['a.xml'] and report.problems == []


def _dirt(voc):
    images = {
        'bad_xml': '<annotation><object>',
        'coco_xml': '<coco/>',
        'damaged': [CAT],
        'empty': [],
        'gone': [CAT],
        'inverted': [{'name': 'cat', 'box': (50, 10, 20, 40)}],
        'malformed': [{'name': 'cat', 'box': ('ten', 1, 20, 20)}, CAT],
        'nameless': [{'box': (1, 1, 20, 20)}, CAT],
        'no_box': [{'name': 'cat', 'box': ()}, CAT],
        'no_xml': None,
        'other_name': voc.xml([CAT], filename='different.jpg'),
        'other_size': voc.xml([CAT], size=(0, 0)),
        'outside': [{'name': 'cat', 'box': (301, 1, 320, 20)}],
        'over': [{'name': 'cat', 'box': (51, 41, 150, 60)}],
        'stranger': [{'name': 'zebra', 'box': (1, 1, 20, 20)}, CAT],
        'thin': [{'name': 'cat', 'box': (1, 1, 1.5, 20)}],
        'twice': [CAT, CAT],
        'zero': [{'name': 'cat', 'box': (20, 20, 20, 20)}],
        'zero_latin': voc.xml([]).encode('utf-8') + b'\xff\xfe',
    }
    root = voc(images)
    (root / 'JPEGImages' / 'gone.jpg').unlink()
    damaged = root / 'JPEGImages' / 'damaged.jpg'
    damaged.write_bytes(damaged.read_bytes()[:700])
    return root


DIRT = {
    'unreadable_annotation': ['bad_xml.xml', 'coco_xml.xml', 'zero_latin.xml'],
    'unreadable_image': ['damaged.jpg'],
    'missing_image': ['gone.xml'],
    'box_inverted': ['inverted.xml'],
    'malformed_number': ['malformed.xml', 'no_box.xml'],
    'object_without_class': ['nameless.xml'],
    'missing_annotation': ['no_xml.xml'],
    'file_name_differs': ['other_name.xml'],
    'size_differs': ['other_size.xml'],
    'box_outside': ['outside.xml'],
    'box_clipped': ['over.xml'],
    'unknown_class': ['stranger.xml'],
    'box_below_one_pixel': ['thin.xml'],
    'duplicate_box': ['twice.xml'],
    'box_without_area': ['zero.xml'],
    'image_without_objects': [
        'empty.xml', 'inverted.xml', 'outside.xml', 'thin.xml', 'zero.xml',
    ],
}  # fmt: skip


def test_every_kind_of_dirt_is_reported_by_name_and_nothing_else(voc, tmp_path):
    coco, report = _convert(_dirt(voc), tmp_path, classes=['cat', 'dog'])
    assert {kind: report.files(kind) for kind in report.kinds} == DIRT
    kept = {image['file_name'] for image in coco['images']}
    lost = {'bad_xml', 'coco_xml', 'damaged', 'gone', 'no_xml', 'zero_latin'}
    assert {f'{name}.jpg' for name in lost}.isdisjoint(kept) and len(kept) == 13
    assert 'empty.jpg' in kept
    by_id = {image['id']: image for image in coco['images']}
    clipped = [a for a in coco['annotations'] if by_id[a['image_id']]['file_name'] == 'over.jpg']
    assert clipped[0]['bbox'] == [50, 40, 50, 19]
    sized = next(i for i in coco['images'] if i['file_name'] == 'other_size.jpg')
    assert (sized['width'], sized['height']) == (100, 80)


def test_strict_stops_at_the_first_problem(voc, tmp_path):
    root = voc({'a': [CAT], 'over': [{'name': 'cat', 'box': (51, 41, 150, 60)}]})
    with pytest.raises(LaunchError, match='over.xml: box clipped: cat at'):
        _convert(root, tmp_path, strict=True)
    assert not (tmp_path / 'out.json').exists()


@pytest.mark.parametrize('option', ['difficult', 'convention', 'missing_annotations'])
def test_a_misspelt_choice_is_not_the_other_one(option, voc, tmp_path):
    with pytest.raises(KeyError, match='ignored'):
        _convert(voc({'a': [CAT]}), tmp_path, **{option: 'ignored'})


def test_missing_annotations_can_be_taken_as_empty(voc, tmp_path):
    coco, report = _convert(voc({'a': [CAT], 'b': None}), tmp_path, missing_annotations='empty')
    assert [i['file_name'] for i in coco['images']] == ['a.jpg', 'b.jpg']
    assert report.files('missing_annotation') == ['b.xml']


def test_split_by_name_and_by_file(voc, tmp_path):
    root = voc({'a': [CAT], 'b': [DOG], 'c': [CAT]})
    sets = root / 'ImageSets' / 'Main'
    sets.mkdir(parents=True)
    (sets / 'train.txt').write_text('c 1\na -1\nc 0\nlost 1\n')
    coco, report = _convert(root, tmp_path, split='train')
    assert [i['file_name'] for i in coco['images']] == ['a.jpg', 'c.jpg']
    assert report.files('duplicate_image') == ['train.txt']
    assert report.files('missing_annotation') == ['lost.xml']
    by_path, _ = _convert(root / 'Annotations', tmp_path, split=sets / 'train.txt')
    assert by_path == coco
    with pytest.raises(FileNotFoundError, match='Main/val.txt'):
        _convert(root, tmp_path, split='val')


def test_an_image_named_by_its_xml(voc, tmp_path):
    root = voc({'a': [CAT]})
    (root / 'JPEGImages' / 'a.jpg').rename(root / 'JPEGImages' / 'renamed.jpg')
    xml = voc.xml([CAT], filename='../JPEGImages/renamed.jpg')
    (root / 'Annotations' / 'a.xml').write_text(xml)
    coco, _ = _convert(root, tmp_path)
    assert [i['file_name'] for i in coco['images']] == ['renamed.jpg']


def test_boxes_and_ignored_ones_are_those_of_mmdetections_xml_dataset(voc, tmp_path):
    datasets = pytest.importorskip('mmdet.datasets')
    root = voc({'a': [{**CAT, 'difficult': 1}, DOG], 'b': [DOG]})
    (root / 'all.txt').write_text('a\nb\n')
    _convert(root, tmp_path, classes=('cat', 'dog'))
    kwargs = dict(metainfo=dict(classes=('cat', 'dog')), pipeline=[], test_mode=True)
    xml = datasets.XMLDataset(
        ann_file=str(root / 'all.txt'), data_prefix=dict(sub_data_root=str(root)), **kwargs
    )
    coco = datasets.CocoDataset(
        ann_file=str(tmp_path / 'out.json'),
        data_prefix=dict(img=str(root / 'JPEGImages')),
        **kwargs,
    )
    assert len(coco) == len(xml) == 2
    for ours, theirs in zip(coco, xml):
        assert ours['instances'] == theirs['instances']
        assert (ours['height'], ours['width']) == (theirs['height'], theirs['width'])
        assert Path(ours['img_path']).samefile(root / 'JPEGImages' / Path(ours['img_path']).name)


BOX = '<bndbox><xmin>11</xmin><ymin>21</ymin><xmax>50</xmax><ymax>60</ymax></bndbox>'
OTHER_BOX = BOX.replace('>11<', '>12<')


def _object(name, box=BOX):
    return f'<object><name>{name}</name>{box}</object>'


@pytest.mark.parametrize(
    'body, lost, boxes',
    [
        (f'{_object("cat")}<objects>{_object("a")}{_object("b")}</objects>', 2, 1),
        (_object('cat', BOX + _object('dog')), 1, 1),
        (_object('cat').replace('object>', 'Object>'), 1, 0),
        (_object('cat').replace('<object>', '<object xmlns="x">'), 1, 0),
        (f'<name>cat</name>{BOX}', 1, 0),
        (_object('cat', f'{BOX}<visible>{OTHER_BOX}</visible>'), 1, 1),
        (_object('cat', BOX.replace('</bndbox>', f'{OTHER_BOX}</bndbox>')), 1, 1),
        (_object('cat', BOX + OTHER_BOX), 1, 1),
        # the layout of persons in VOC
        (_object('cat', f'{BOX}<part><name>head</name>{OTHER_BOX}</part>'), 0, 1),
    ],
)
def test_objects_and_boxes_in_unusual_places_are_problems(voc, tmp_path, body, lost, boxes):
    coco, report = _convert(voc({'a': f'<annotation>{body}</annotation>'}), tmp_path)
    assert [f.kind for f in report.problems] == ['misplaced_object'] * bool(lost)
    assert all(f.detail.startswith(f'{lost} <bndbox>') for f in report.problems)
    assert [a['bbox'] for a in coco['annotations']] == [[10, 20, 39, 39]] * boxes
    if lost:
        with pytest.raises(LaunchError, match=f'^a.xml: misplaced object: {lost} <bndbox>'):
            _convert(tmp_path / 'voc', tmp_path, strict=True)


@pytest.mark.parametrize(
    'declared, encoding, name',
    [
        ('GB2312', 'gb2312', '猫'),
        ('Shift_JIS', 'shift_jis', '猫'),
        ('windows-1251', 'cp1251', 'кот'),
        ('utf-8', 'utf-8-sig', '猫'),
        ('utf-16', 'utf-16', '猫'),
    ],
)
def test_xml_in_other_encodings(voc, tmp_path, declared, encoding, name):
    text = f'<?xml version="1.0" encoding="{declared}"?><annotation>{_object(name)}</annotation>'
    coco, report = _convert(voc({'a': text.encode(encoding)}), tmp_path)
    assert [c['name'] for c in coco['categories']] == [name]
    assert report.findings == []


@pytest.mark.parametrize('declared', ['utf-8', 'gb2312', 'utf-16', 'unheard-of'])
def test_what_is_not_in_the_declared_encoding_is_unreadable(voc, tmp_path, declared):
    text = f'<?xml version="1.0" encoding="{declared}"?><annotation>{_object("Käfer")}</annotation>'
    report = _convert(voc({'a': text.encode('latin-1'), 'b': [CAT]}), tmp_path)[1]
    assert [(f.kind, f.file) for f in report.findings] == [('unreadable_annotation', 'a.xml')]


def test_nothing_is_written_when_no_image_is_left(voc, tmp_path):
    root = voc({'a': [CAT], 'b': None})
    (root / 'JPEGImages' / 'a.jpg').write_bytes(b'not a picture')
    with pytest.raises(LaunchError, match='no image is left of 2, such as a.jpg: OpenCV'):
        _convert(root, tmp_path)
    assert not (tmp_path / 'out.json').exists()


BCCD = Path(
    os.environ.get(
        'MMDET_CONTRAST_BCCD', Path(__file__).resolve().parents[3] / 'shared' / 'data' / 'bccd'
    )
)


@pytest.mark.skipif(not (BCCD / 'Annotations').is_dir(), reason='BCCD not found')
@pytest.mark.parametrize(
    'split, images, boxes, dirty',
    [
        ('train', 205, {'RBC': 2381, 'WBC': 214, 'Platelets': 209}, ['BloodImage_00343.xml']),
        ('val', 87, {'RBC': 967, 'WBC': 87, 'Platelets': 83}, ['BloodImage_00338.xml']),
        ('test', 72, {'RBC': 805, 'WBC': 71, 'Platelets': 69}, []),
    ],
)
def test_bccd(tmp_path, split, images, boxes, dirty):
    coco, report = _convert(BCCD, tmp_path, split=split, classes=tuple(boxes))
    assert len(coco['images']) == images
    assert dict(report.per_class) == boxes
    assert report.files('box_without_area') == dirty
    assert {f.file for f in report.findings} == set(dirty)
