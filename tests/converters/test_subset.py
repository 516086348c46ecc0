import json

import pytest

from mmdet_contrast.converters import subset_coco
from mmdet_contrast.utils.config import LaunchError


@pytest.fixture
def ann_file(tmp_path):
    coco = dict(
        info=dict(description='x'),
        images=[dict(id=i, file_name=f'{i}.jpg', width=60, height=40) for i in range(6)],
        categories=[dict(id=7, name='cat'), dict(id=9, name='dog'), dict(id=2, name='cow')],
        # image 5 has none
        annotations=[
            dict(id=k + 1, image_id=k % 5, category_id=c, bbox=[2, 2, 9, 9], area=81, iscrowd=0)
            for k, c in enumerate([7, 9, 2, 9, 9, 7, 2])
        ],
    )
    path = tmp_path / 'all.json'
    path.write_text(json.dumps(coco))
    return path


def read(path):
    return json.loads(path.read_text())


def test_classes_and_the_pictures_that_show_them(ann_file, tmp_path):
    out = tmp_path / 'part.json'
    assert subset_coco(ann_file, out, classes=['cow']) == dict(images=2, annotations=2)
    part, whole = read(out), read(ann_file)
    assert part['categories'] == whole['categories']
    assert part['info'] == whole['info']
    assert [i['id'] for i in part['images']] == [1, 2]
    assert part['annotations'] == [a for a in whole['annotations'] if a['category_id'] == 2]


def test_pictures_annotate_no_class_that_is_cut_out(ann_file, tmp_path):
    coco = read(ann_file)
    for image, ids in zip(coco['images'], (None, [7, 2], [], [9])):
        image['annotated_category_ids'] = ids
    ann_file.write_text(json.dumps(coco))
    subset_coco(ann_file, tmp_path / 'part.json', classes=['cow', 'dog'])
    found = {
        i['id']: i.get('annotated_category_ids') for i in read(tmp_path / 'part.json')['images']
    }
    assert found == {1: [2], 2: [], 3: [9], 4: None}


def test_some_pictures(ann_file, tmp_path):
    outs = [tmp_path / f'{i}.json' for i in range(3)]
    for out, seed in zip(outs, (0, 0, 1)):
        counts = subset_coco(ann_file, out, num_images=3, seed=seed)
        assert counts['images'] == 3
    first, again, other = [read(out) for out in outs]
    assert first == again
    assert first['images'] != other['images']
    shown = {i['id'] for i in first['images']}
    assert {a['image_id'] for a in first['annotations']} == shown
    assert len(first['annotations']) == sum(
        a['image_id'] in shown for a in read(ann_file)['annotations']
    )


def test_without_the_pictures_of_another_file(ann_file, tmp_path):
    new, old = tmp_path / 'new.json', tmp_path / 'old.json'
    subset_coco(ann_file, new, classes=['cow'])
    # of the pictures with dogs, 1 shows a cow as well
    assert subset_coco(ann_file, old, classes=['dog'], without=new)['images'] == 2
    assert not {i['id'] for i in read(old)['images']} & {i['id'] for i in read(new)['images']}
    assert {a['image_id'] for a in read(old)['annotations']} == {3, 4}


def test_what_cannot_be_cut_out_is_refused(ann_file, tmp_path):
    with pytest.raises(LaunchError, match="no class 'bird', only cat, dog, cow"):
        subset_coco(ann_file, tmp_path / 'x.json', classes=['bird'])
    with pytest.raises(LaunchError, match='6 pictures were asked for, and 5 in'):
        subset_coco(ann_file, tmp_path / 'x.json', num_images=6)
    with pytest.raises(LaunchError, match='0 pictures were asked for'):
        subset_coco(ann_file, tmp_path / 'x.json', num_images=0)
    with pytest.raises(LaunchError, match=r'and 0 in .*all.json .*cow.*: nothing'):
        subset_coco(ann_file, tmp_path / 'x.json', classes=['cow'], without=ann_file)
    ann_file.write_text('[]')
    with pytest.raises(LaunchError, match='has no list of categories'):
        subset_coco(ann_file, tmp_path / 'x.json')
    assert not (tmp_path / 'x.json').exists()
