"""Annotation files: which are refused, and that the others train and evaluate."""

import copy
import itertools
import json
import os
import re
from collections import Counter

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from mmdet.datasets import CocoDataset
from mmdet.datasets.transforms import LoadAnnotations
from mmdet.evaluation import CocoMetric

from mmdet_contrast.datasets.coco_file import CocoFile, read_coco_file, write_areas
from mmdet_contrast.utils.config import LaunchError

NAMES = {13: 'disc', 7: 'ring', 11: 'bär'}
SECTIONS = ('categories', 'images', 'annotations')


def valid():
    """Two images of five, twelve boxes of three categories; no id is part of another's digits."""
    images = [
        dict(id=200 + i, file_name=f'{i}.jpg', width=64 + i, height=48, license=1) for i in range(5)
    ]
    annotations = [
        dict(
            id=5000 + i,
            image_id=200 + i % 3,
            category_id=list(NAMES)[i % 3],
            bbox=[2 + i, 3.5, 10 + i, 8],
            area=8.0 * (10 + i),
            iscrowd=0,
            segmentation=[],
        )
        for i in range(12)
    ]
    categories = [dict(id=key, name=name, supercategory='') for key, name in NAMES.items()]
    return dict(images=images, annotations=annotations, categories=categories)


def put(section, index, **values):
    """A change of a file: other values of one entry; `...` removes the key."""

    def change(content):
        for key, value in values.items():
            if value is ...:
                del content[section][index][key]
            else:
                content[section][index][key] = value

    return change


def of_all(section, key, function):
    """A change of a file: another value for one key of all entries."""

    def change(content):
        for entry in content[section]:
            entry[key] = function(entry[key])

    return change


def category(**values):
    return put('categories', 1, **values)


def image(**values):
    return put('images', 1, **values)


def annotation(**values):
    return put('annotations', 4, **values)


def root_category(content):
    content['categories'].insert(0, dict(id=0, name='disc'))


def twice(section):
    def change(content):
        content[section].append(copy.deepcopy(content[section][0]))

    return change


def fractions(content):
    sizes = {i['id']: (i['width'], i['height']) for i in content['images']}
    for entry in content['annotations']:
        width, height = sizes[entry['image_id']]
        x, y, w, h = entry['bbox']
        entry['bbox'] = [x / width, y / height, w / width, h / height]


def two_corners(content):
    for entry in content['annotations']:
        x, y, w, h = entry['bbox']
        entry['bbox'] = [x + 20, y + 20, x + w + 20, y + h + 20]


@pytest.fixture
def write(tmp_path):
    def write(content, change=None):
        if change:
            change(content)
        path = tmp_path / 'some.json'
        path.write_text(json.dumps(content), encoding='utf-8')
        return str(path)

    return write


BROKEN = [
    (lambda content: content.pop('images'), 'has no images: give a COCO file, .* annotations'),
    (lambda content: content.update(images={}), 'has no list of images'),
    (lambda content: content.update(annotations=None), 'has no list of annotations'),
    (lambda content: content.update(categories=[]), 'has no categories'),
    (lambda content: content['categories'].insert(1, 'ring'), r"categories\[1\] is 'ring'"),
    (lambda content: content['annotations'].insert(3, [1]), r'annotations\[3\] is \[1\]'),
    (root_category, "categories 0 and 13 are both called 'disc', .* remove or rename one"),
    (category(name=''), "category 7 has name '', but name must be a name"),
    (category(name=...), 'category 7 has no name'),
    (category(name=3), 'category 7 has name 3'),
    (category(id=...), r'categories\[1\] is .* whole number as id'),
    (category(id='7'), r"categories\[1\] is {.*'id': '7'"),
    (category(id=True), r'categories\[1\] is .*True'),
    (category(id=7.0), r'categories\[1\] is .*7.0'),
    (category(id=13), r'categories\[0\] and categories\[1\] have the same id 13'),
    (image(id=None), r'images\[1\] is .* number or a string as id'),
    (image(id=[1]), r'images\[1\] is '),
    (image(id=200), r'images\[0\] and images\[1\] have the same id 200'),
    (image(id='201'), "image '201' has id '201', but id must be of one type with 200"),
    (image(file_name=...), 'image 201 has no file_name'),
    (image(file_name=''), "image 201 has file_name ''"),
    (image(file_name=5), 'image 201 has file_name 5'),
    (image(width=...), 'image 201 has no width'),
    (image(height=0), 'image 201 has height 0'),
    (image(width='64'), "image 201 has width '64'"),
    (image(width=64.5), 'image 201 has width 64.5'),
    (image(height=float('nan')), 'image 201 has height nan'),
    (twice('annotations'), r'annotations\[0\] and annotations\[12\] have the same id 5000'),
    (annotation(id=...), r'annotations\[4\] is '),
    (annotation(image_id=...), 'annotation 5004 has no image_id'),
    (annotation(image_id=9), 'annotation 5004 has image_id 9, .*an id of images, such as 200'),
    (annotation(image_id='201'), "annotation 5004 has image_id '201', .* such as 200"),
    (annotation(image_id={}), 'annotation 5004 has image_id {}'),
    (of_all('images', 'id', str), "annotation 5000 has image_id 200, .* such as '200'"),
    (annotation(category_id=...), 'annotation 5004 has no category_id'),
    (annotation(category_id=8), r'annotation 5004 has category_id 8, .*\[13, 7, 11\]'),
    (annotation(category_id=[]), r'annotation 5004 has category_id \[\]'),
    (annotation(bbox=...), 'annotation 5004 has no bbox, but bbox must be 4 finite numbers'),
    (annotation(bbox=[], iscrowd=1), r'annotation 5004 has bbox \[\]'),
    (annotation(bbox=[1, 2, 3, '4']), 'annotation 5004 has bbox'),
    (annotation(bbox=[1, 2, 3, True]), 'annotation 5004 has bbox'),
    (annotation(bbox=[1, 2, 3, float('nan')]), 'annotation 5004 has bbox'),
    (annotation(bbox=[1, 2, 10**400, 4]), 'annotation 5004 has bbox'),
    (annotation(area='80'), "annotation 5004 has area '80'"),
    (annotation(area=float('-inf')), 'annotation 5004 has area -inf'),
    (annotation(iscrowd='0'), "annotation 5004 has iscrowd '0', but iscrowd must be 0 or 1"),
    (annotation(ignore='false'), "annotation 5004 has ignore 'false', but ignore must be 0 or 1"),
    (fractions, r'all boxes lie between 0 and 1 \(annotation 5000 has \[0.03.*in pixels'),
    (two_corners, r'\d+ of 12 boxes .* two corners \(annotation 5000 has \[22, .* x2 - x1'),
]


@pytest.mark.parametrize(('change', 'message'), BROKEN, ids=itertools.count())
def test_refuses_with_file_and_entry(write, change, message):
    path = write(valid(), change)
    with pytest.raises(LaunchError, match=message) as caught:
        read_coco_file(path)
    assert repr(path) in str(caught.value)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
    ('data', 'message'),
    [
        (b'', 'cannot be read .*line 1 column.*JSON in UTF-8'),
        (b'<html>', 'cannot be read'),
        (b'\xff\xfe{\0', 'cannot be read'),
        (b'[' * 100000, 'cannot be read'),
        (b'[{"image_id": 1}]', 'has no list of categories: give a COCO file'),
        (b'null', 'has no list of categories'),
        (b'{}', 'has no categories'),
    ],
)
def test_refuses_what_is_no_coco_file(tmp_path, data, message):
    path = tmp_path / 'some.json'
    path.write_bytes(data)
    with pytest.raises(LaunchError, match=message) as caught:
        read_coco_file(path)
    assert repr(str(path)) in str(caught.value)
    assert '\n' not in str(caught.value)


def test_refuses_a_missing_file_and_a_folder(tmp_path):
    for path in (tmp_path / 'nowhere.json', tmp_path):
        with pytest.raises(LaunchError, match='cannot be read .*, seen from '):
            read_coco_file(path)


def test_gives_what_the_file_holds(write):
    path = write(valid())
    file = read_coco_file(path, dict(backend='local'))
    assert isinstance(file, CocoFile)
    assert file.path == path
    assert list(file.categories.items()) == list(NAMES.items())
    assert file.images[203] == '3.jpg'
    assert file.sizes[203] == (67, 48)
    assert file.usable == {13: 4, 7: 4, 11: 4}
    assert file.dropped == {}
    assert not file.lacks_area


def test_a_file_of_another_storage_is_read_once(monkeypatch):
    reads = []

    def get(path, file_format, backend_args):
        reads.append((path, backend_args))
        return valid()

    monkeypatch.setattr('mmdet_contrast.datasets.coco_file.load', get)
    for path, args in (('http://a/1.json', None), ('http://a/2.json', dict(backend='http'))):
        assert read_coco_file(path, args) == read_coco_file(path, args)
    assert [path for path, _ in reads] == ['http://a/1.json', 'http://a/2.json']
    assert reads[1][1] == dict(backend='http')


def test_counts_what_training_does_not_use(write):
    content = valid()
    changes = [
        dict(iscrowd=1),
        dict(ignore=1),
        dict(ignore=True, iscrowd=1),
        dict(bbox=[2, 3, 0, 8]),
        dict(bbox=[2, 3, 5, -8]),
        dict(bbox=[2, 3, 5, 0.5]),
        dict(bbox=[64, 3, 5, 5]),
        dict(bbox=[-5, 3, 5, 5]),
        dict(area=0),
        # these two train
        dict(bbox=[60, 40, 100, 100], iscrowd=False, ignore=None),
        dict(bbox=[-50, -50, 200, 200]),
    ]
    for entry, values in zip(content['annotations'], changes):
        entry.update(values, image_id=200, category_id=7)
    file = read_coco_file(write(content))
    assert file.usable == {13: 0, 7: 2, 11: 1}
    assert file.dropped == {
        'crowd regions': 1,
        'annotations with ignore=1': 2,
        'boxes without area': 2,
        'boxes thinner than a pixel': 1,
        'boxes outside of their image': 2,
        'annotations with an area of 0 or less': 1,
    }


@pytest.mark.parametrize(
    'change',
    [
        lambda content: content.update(annotations=[]),
        lambda content: content['annotations'].reverse(),
        lambda content: content['images'].append(dict(content['images'][0], id=0)),
        of_all('images', 'width', float),
        of_all('annotations', 'iscrowd', bool),
        annotation(segmentation=None, attributes='any'),
        # one box of a pixel, and a box in a large picture
        annotation(bbox=[0, 0, 1, 1]),
        annotation(bbox=[60, 40, 62, 45]),
        lambda content: [of_all(s, k, str)(content) for s, k in [('images', 'id'),
                                                                ('annotations', 'image_id')]],
    ],
    ids=itertools.count(),
)  # fmt: skip
def test_accepts_and_the_data_are_right(write, change):
    path = write(valid(), change)
    assert not read_coco_file(path).lacks_area
    check_data(path)


def test_a_file_without_answers_is_one_without_boxes(write):
    file = read_coco_file(write(valid(), lambda content: content.pop('annotations')))
    assert not any(file.usable.values()) and not file.dropped and file.images


def test_reads_a_file_once_until_it_changes(write):
    path = write(valid())
    file = read_coco_file(path)
    assert read_coco_file(path) is file
    write(valid(), lambda content: content['annotations'].pop())
    assert sum(read_coco_file(path).usable.values()) == 11


def test_a_relative_path_is_that_of_the_working_folder(write, tmp_path, monkeypatch):
    path = write(valid())
    (tmp_path / 'other').mkdir()
    stat = os.stat(path)
    other = tmp_path / 'other' / 'some.json'
    # as many bytes, and as old
    other.write_text((tmp_path / 'some.json').read_text().replace('ring', 'bolt'))
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    names = []
    for folder in (tmp_path, tmp_path / 'other'):
        monkeypatch.chdir(folder)
        names.append(read_coco_file('some.json').categories[7])
    assert names == ['ring', 'bolt']


def test_writes_what_is_missing(write, tmp_path):
    content = valid()
    del content['annotations'][2]['area'], content['annotations'][3]['iscrowd']
    content['annotations'][5].update(id=0, bbox=[1, 1, -3, -3])
    del content['annotations'][5]['area']
    content['annotations'][6]['id'] = 1
    path, target = write(content), tmp_path / 'new' / 'whole.json'
    before = read_coco_file(path)
    assert before.lacks_area
    write_areas(path, target)
    after = read_coco_file(target)
    assert after == before._replace(path=str(target), lacks_area=False)
    expected = copy.deepcopy(content)
    expected['annotations'][2]['area'] = 12 * 8
    expected['annotations'][3]['iscrowd'] = 0
    expected['annotations'][5].update(id=2, area=0)
    assert json.loads(target.read_text(encoding='utf-8')) == expected


@pytest.mark.parametrize('values', [dict(area=...), dict(iscrowd=...), dict(id=0)])
def test_each_of_what_is_fixed_needs_it(write, values):
    """The evaluation finds all boxes only once the file is fixed."""
    path = write(valid(), annotation(**values))
    assert read_coco_file(path).lacks_area
    check_data(path)


def test_a_copy_keeps_what_json_does_not_have(write, tmp_path):
    path, target = write(valid(), annotation(area=..., score=float('nan'))), tmp_path / 'copy.json'
    write_areas(path, target)
    assert read_coco_file(target).usable == read_coco_file(path).usable


JUNK = [
    *(None, True, False, 0, 1, -1, 0.5, 7, 13, 200, 5000, 7.0, '7', '200', '', 'x', 'ring', 'a\0'),
    *('\ud800', 10**30, 2**63, 1e308, 1e9, float('nan'), float('inf'), -float('inf')),
    *([], {}, [1], [1, 2, 3, 4], [0, 0, 1, 1], [1.5, 2, 3, None], [[]], {'id': 1}, [5, 5, 0.5, 9]),
    *([-9, -9, 40, 40], [1, 1, 1e30, 1], [float('nan')] * 4, [63, 40, 63, 40]),
]
# what may well be right
LIKELY = dict(
    categories=dict(id=[0, 1, -3, 13, 99], name=['disc', 'new', 'ä b']),
    images=dict(
        id=[0, 77, 201, '201'], file_name=['0.jpg', '/a/b.png'], width=[1, 64.0], height=[7, 9000]
    ),
    annotations=dict(
        id=[0, -1, 9000, 5001],
        image_id=[200, 203, 204],
        category_id=[13, 7, 11],
        bbox=[[0, 0, 1, 1], [60, 40, 99, 99], [-9, -9, 12, 12], [3, 3, 2, 0.5], [70, 9, 9, 9]],
        area=[0, 1, 5.5, 1e12, -1],
        iscrowd=[0, 1, True, 0.0],
        ignore=[0, 1, False, None],
        segmentation=[None, [[1, 1, 9, 1, 9, 9]], dict(counts=[1], size=[9, 9])],
    ),
)


@st.composite
def mutations(draw):
    """One change, as (kind, section, index, key, value)."""
    section = draw(st.sampled_from(SECTIONS))
    index = draw(st.integers(0, {'categories': 2, 'images': 4, 'annotations': 11}[section]))
    key = draw(st.sampled_from(sorted(LIKELY[section])))
    likely = draw(st.integers(0, 3)) > 0
    kinds = ('set', 'set', 'shuffle', 'drop')
    if not likely:
        kinds += ('delete', 'coordinate', 'double', 'entry', 'section', 'remove section')
        kinds += ('all', 'text', 'number')
    values = LIKELY[section][key] if likely else JUNK
    return draw(st.sampled_from(kinds)), section, index, key, draw(st.sampled_from(values))


def mutate(content, kind, section, index, key, value):
    """Apply a change where the ones before it have left something to change."""
    entries, value = content.get(section), copy.deepcopy(value)
    if kind == 'section':
        content[section] = value
    elif kind == 'remove section':
        content.pop(section, None)
    elif isinstance(entries, list) and entries:
        index %= len(entries)
        entry = entries[index]
        if kind == 'double':
            entries.append(copy.deepcopy(entry))
        elif kind == 'drop':
            del entries[index]
        elif kind == 'shuffle':
            entries.sort(key=lambda e: repr(e)[::-1])
        elif kind == 'entry':
            entries[index] = value
        elif isinstance(entry, dict):
            if kind == 'set':
                entry[key] = value
            elif kind == 'delete':
                entry.pop(key, None)
            elif kind == 'coordinate' and isinstance(entry.get('bbox'), list):
                entry['bbox'][index % 4 : index % 4 + 1] = [value]
            else:
                function = dict(all=lambda _: value, text=str, number=len).get(kind)
                for other in entries:
                    if isinstance(other, dict) and key in other and function:
                        other[key] = function(str(other[key]))


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('mutated')


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
@given(st.lists(mutations(), min_size=1, max_size=3))
@example([('delete', 'annotations', 3, 'area', None), ('set', 'annotations', 3, 'id', 0)])
@example([('remove section', 'annotations', 0, 'area', None)])
def test_names_file_and_entry_or_the_data_are_right(folder, changes):
    content = valid()
    for change in changes:
        mutate(content, *change)
    path = folder / f'{os.urandom(8).hex()}.json'
    path.write_text(json.dumps(content), encoding='utf-8')
    try:
        read_coco_file(path)
    except LaunchError as error:
        message = str(error)
        assert message.startswith(f'annotation file {str(path)!r}')
        assert '\n' not in message
        place = r'(category|image|annotation|categories) -?\w|\w\[\d+\]|ids |has no '
        assert re.search(place, message.replace(str(path), ''))
        kind, section, index, key, _ = changes[0]
        if len(changes) == 1 and kind in ('set', 'delete', 'coordinate') and key != 'id':
            assert str(valid()[section][index]['id']) in message
    else:
        check_data(str(path))
    finally:
        path.unlink()


def check_data(path):
    """Compare the data set of an accepted file with its text, and evaluate the true boxes."""
    file = read_coco_file(path)
    if file.lacks_area:
        whole = path.replace('.json', '-whole.json')
        write_areas(path, whole)
        assert read_coco_file(whole) == file._replace(path=whole, lacks_area=False)
        path = whole
    with open(path, encoding='utf-8') as stream:
        content = json.load(stream)
    # a file that lists images to test on may have none
    content.setdefault('annotations', [])
    names = {entry['id']: entry['name'] for entry in content['categories']}
    meta = dict(classes=tuple(names.values()))
    # serialising waits for the garbage collector each time
    own = dict(pipeline=[], data_prefix=dict(img='x'), serialize_data=False)
    dataset = CocoDataset(ann_file=path, metainfo=meta, **own)
    assert len(dataset) == len(content['images'])

    expected = []
    for entry in content['annotations']:
        x, y, w, h = entry['bbox']
        expected.append((entry['image_id'], [x, y, x + w, y + h], names[entry['category_id']]))
    found, usable = [], Counter()
    load, metric = LoadAnnotations(with_bbox=True), CocoMetric(ann_file=path)
    metric.dataset_meta = meta
    for i in range(len(dataset)):
        info = load(dataset[i])
        key = info['img_id']
        assert info['img_path'] == os.path.join('x', file.images[key])
        assert (info['width'], info['height']) == file.sizes[key]
        for instance in info['instances']:
            name = meta['classes'][instance['bbox_label']]
            found.append((key, instance['bbox'], name))
            usable[name] += not instance['ignore_flag']
        boxes = info['gt_bboxes'].tensor
        assert boxes.isfinite().all()
        boxes = dict(bboxes=boxes, scores=torch.ones(len(boxes)))
        boxes.update(labels=torch.as_tensor(info['gt_bboxes_labels']))
        size = (info['height'], info['width'])
        metric.process({}, [dict(img_id=key, ori_shape=size, pred_instances=boxes)])
    assert not [entry for entry in found if entry not in expected]
    assert [usable[name] for name in meta['classes']] == list(file.usable.values())
    assert sum(usable.values()) + sum(file.dropped.values()) == len(expected)

    results = metric.compute_metrics(metric.results)
    ordinary = all(0 <= entry['area'] < 1e9 for entry in content['annotations'])
    if not file.dropped and content['annotations'] and ordinary:
        assert results['bbox_mAP'] == pytest.approx(1)
