"""COCO files that become one: boxes, and what each picture annotates."""

import json
import re

import pytest

from mmdet_contrast.apis.addition_data import AnnotatedPictures, merge_files, names_in
from mmdet_contrast.utils.config import LaunchError

OLD, NEW = ['car', 'person'], ['bus', 'van']
CLASSES = [*OLD, *NEW]


def write(path, categories, pictures):
    """Write a file; ``pictures`` are (name, names of the boxes' classes, names it annotates)."""
    ids = {name: 10 * number for number, name in enumerate(categories, 1)}
    images, annotations = [], []
    for number, (name, boxes, annotated) in enumerate(pictures, 1):
        images.append(dict(id=number, file_name=name, width=100, height=50))
        if annotated is not None:
            images[-1]['annotated_category_ids'] = [ids.get(x, x) for x in annotated]
        for box in boxes:
            annotations.append(
                dict(
                    id=len(annotations),
                    image_id=number,
                    category_id=ids[box],
                    bbox=[1, 2, 10 + len(annotations), 20],
                )
            )
    categories = [dict(id=key, name=name) for name, key in ids.items()]
    path.write_text(json.dumps(dict(images=images, annotations=annotations, categories=categories)))
    return str(path)


def boxes_of(merged):
    """(file name, class) of each box."""
    names = {image['id']: image['file_name'] for image in merged.content['images']}
    return [
        (names[a['image_id']], CLASSES[a['category_id']]) for a in merged.content['annotations']
    ]


def coverage_of(merged):
    return {
        image['file_name']: [CLASSES[i] for i in image['annotated_category_ids']]
        for image in merged.content['images']
    }


def new_part(path, annotated=()):
    return AnnotatedPictures(path, '/new', NEW, [*NEW, *annotated], CLASSES)


def test_new_and_annotated_classes_are_taken(tmp_path):
    categories = ['van', 'tree', 'bus', 'car', 'person']
    pictures = [('a.jpg', ['van', 'tree', 'car', 'person'], None), ('b.jpg', ['bus'], None)]
    path = write(tmp_path / 'new.json', categories, pictures)
    merged = merge_files([new_part(path, ['car'])], CLASSES)
    assert merged.content['categories'] == [dict(id=i, name=n) for i, n in enumerate(CLASSES)]
    assert boxes_of(merged) == [('/new/a.jpg', 'van'), ('/new/a.jpg', 'car'), ('/new/b.jpg', 'bus')]
    assert coverage_of(merged) == dict.fromkeys(['/new/a.jpg', '/new/b.jpg'], ['car', *NEW])
    assert merged.uniform
    assert merged.left_out == dict(person=1)
    first = merged.content['annotations'][0]
    assert first == dict(id=1, image_id=0, category_id=3, bbox=[1, 2, 10, 20], area=200, iscrowd=0)
    assert names_in(path) == dict(van=1, tree=1, bus=1, car=1, person=1)


def test_a_picture_may_say_itself_what_it_annotates(tmp_path):
    pictures = [
        ('a.jpg', ['bus', 'car', 'person'], ['car']),
        ('b.jpg', ['bus'], None),
        ('c.jpg', ['car'], []),
        ('d.jpg', ['bus'], ['bus', 'tree']),
    ]
    path = write(tmp_path / 'new.json', [*CLASSES, 'tree'], pictures)
    merged = merge_files([new_part(path)], CLASSES)
    assert boxes_of(merged) == [
        ('/new/a.jpg', 'bus'),
        ('/new/a.jpg', 'car'),
        ('/new/b.jpg', 'bus'),
        ('/new/d.jpg', 'bus'),
    ]
    assert list(coverage_of(merged).values()) == [['car'], NEW, [], ['bus']]
    assert not merged.uniform


def test_old_pictures_annotate_old_classes_and_never_new_ones(tmp_path):
    new = write(tmp_path / 'new.json', NEW, [('a.jpg', ['bus'], None)])
    pictures = [('x.jpg', ['car', 'bus'], None), ('y.jpg', ['person'], ['person', 'bus'])]
    old = write(tmp_path / 'old.json', ['bus', *OLD], pictures)
    parts = [new_part(new), AnnotatedPictures(old, '/old', OLD, OLD, OLD)]
    merged = merge_files(parts, CLASSES)
    assert boxes_of(merged) == [
        ('/new/a.jpg', 'bus'),
        ('/old/x.jpg', 'car'),
        ('/old/y.jpg', 'person'),
    ]
    assert list(coverage_of(merged).values()) == [NEW, OLD, ['person']]
    assert merged.left_out == dict(bus=1)


def test_a_picture_in_both_files_annotates_what_it_does_in_either(tmp_path):
    new = write(tmp_path / 'new.json', CLASSES, [('a.jpg', ['bus', 'car'], None)])
    old = write(tmp_path / 'old.json', OLD, [('a.jpg', ['car', 'person'], None)])
    parts = [new_part(new, ['car']), AnnotatedPictures(old, '/new', OLD, OLD, OLD)]
    merged = merge_files(parts, CLASSES)
    assert boxes_of(merged) == [('/new/a.jpg', x) for x in ('bus', 'car', 'person')]
    assert coverage_of(merged) == {'/new/a.jpg': CLASSES}
    # what the first file alone would leave out
    alone = [new_part(new), parts[1]]
    assert merge_files(alone[:1], CLASSES).left_out == dict(car=1)
    merged = merge_files(alone, CLASSES)
    assert boxes_of(merged) == [('/new/a.jpg', x) for x in ('bus', 'car', 'person')]
    assert merged.left_out == {}


def test_validation_files_say_nothing_of_what_they_annotate(tmp_path):
    path = write(tmp_path / 'val.json', ['bus', 'car'], [('a.jpg', ['bus', 'car'], ['bus'])])
    merged = merge_files([AnnotatedPictures(path, '/val', CLASSES)], CLASSES)
    assert boxes_of(merged) == [('/val/a.jpg', 'bus'), ('/val/a.jpg', 'car')]
    assert 'annotated_category_ids' not in merged.content['images'][0]
    assert [c['name'] for c in merged.content['categories']] == CLASSES


def test_a_picture_named_twice_annotates_what_it_does_in_either_entry(tmp_path):
    pictures = [('a.jpg', ['bus'], ['bus']), ('./a.jpg', ['van', 'bus'], ['van', 'bus'])]
    path = write(tmp_path / 'new.json', CLASSES, pictures)
    merged = merge_files([new_part(path)], CLASSES)
    assert boxes_of(merged) == [('/new/a.jpg', 'bus'), ('/new/a.jpg', 'van')]
    assert coverage_of(merged) == {'/new/a.jpg': NEW}
    # validation counts it twice, as it is given
    val = merge_files([AnnotatedPictures(path, '/new', CLASSES)], CLASSES)
    assert len(val.content['images']) == 2 and len(boxes_of(val)) == 3


@pytest.mark.parametrize('given', [[99], 10, [[10]]])
def test_what_is_no_list_of_known_ids_is_refused(given, tmp_path):
    path = write(tmp_path / 'new.json', NEW, [('a.jpg', ['bus'], [])])
    content = json.loads(open(path).read())
    content['images'][0]['annotated_category_ids'] = given
    (tmp_path / 'new.json').write_text(json.dumps(content))
    text = f'image 1 has annotated_category_ids {given}, but annotated_category_ids must be a list'
    with pytest.raises(LaunchError, match=re.escape(text)):
        merge_files([new_part(path)], CLASSES)


def test_pictures_without_a_box_are_left_out_where_asked_for(tmp_path):
    pictures = [
        ('box.jpg', ['bus'], None),
        ('empty.jpg', [], None),
        ('unsaid.jpg', [], []),
        ('old.jpg', ['car'], None),
    ]
    new = new_part(write(tmp_path / 'new.json', CLASSES, pictures))._replace(empty=False)
    again = write(tmp_path / 'old.json', CLASSES, [('old.jpg', [], None), ('gone.jpg', [], None)])
    parts = [new, AnnotatedPictures(again, '/new', OLD, OLD, OLD)]
    names = [f'/new/{name}.jpg' for name in ('box', 'unsaid', 'old', 'gone')]
    merged = merge_files(parts, CLASSES)
    assert list(coverage_of(merged)) == names
    assert boxes_of(merged) == [('/new/box.jpg', 'bus')]
    assert list(coverage_of(merge_files([new], CLASSES))) == names[:2]
