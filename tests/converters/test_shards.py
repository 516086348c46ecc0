import json
import subprocess
import sys

import pytest
from PIL import Image

from mmdet_contrast.converters import coco_to_shards
from mmdet_contrast.utils.config import LaunchError


@pytest.fixture
def source(tmp_path):
    """Five pictures in a folder with a sub-folder; the third has no annotation."""
    names = ['a.png', 'b.JPG', 'sub/c.jpeg', 'sub/a.png', 'e.png']
    for i, name in enumerate(names):
        path = tmp_path / 'images' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (20 + i, 10), (i, 0, 0)).save(path)
    coco = dict(
        categories=[dict(id=7, name='cat'), dict(id=3, name='dog')],
        images=[
            dict(id=10 + i, file_name=name, width=20 + i, height=10) for i, name in enumerate(names)
        ],
        annotations=[
            dict(id=1 + k, image_id=10 + i, category_id=c, bbox=[1, 1, 5, 4], area=20, iscrowd=0)
            for k, (i, c) in enumerate([(0, 7), (0, 3), (1, 7), (3, 3), (4, 3), (4, 3)])
        ],
    )
    (tmp_path / 'ann.json').write_text(json.dumps(coco))
    return tmp_path


def test_webdataset_reads_what_was_written(source):
    webdataset = pytest.importorskip('webdataset')
    out = source / 'shards'
    counts = coco_to_shards(source / 'ann.json', source / 'images', out, shard_size=2)
    assert counts == dict(images=5, shards=3)
    index = json.loads((out / 'index.json').read_text())
    assert index['source'] == str(source / 'ann.json')
    assert index['categories'] == [dict(id=7, name='cat'), dict(id=3, name='dog')]
    assert [shard['samples'] for shard in index['shards']] == [2, 2, 1]

    coco = json.loads((source / 'ann.json').read_text())
    found = {}
    for shard in index['shards']:
        samples = list(webdataset.WebDataset(str(out / shard['file']), shardshuffle=False))
        assert len(samples) == shard['samples']
        for sample in samples:
            content = json.loads(sample['json'])
            found[content['image']['id']] = content
            name = content['image']['file_name']
            suffix = name.rpartition('.')[2].lower()
            assert sample[suffix] == (source / 'images' / name).read_bytes()
    assert [found[image['id']]['image'] for image in coco['images']] == coco['images']
    assert sum((found[10 + i]['annotations'] for i in range(5)), []) == coco['annotations']


def test_the_same_data_give_the_same_files(source):
    pytest.importorskip('webdataset')
    for name in ('one', 'two'):
        coco_to_shards(source / 'ann.json', source / 'images', source / name, shard_size=3)
    files = sorted(path.name for path in (source / 'one').iterdir())
    assert files == ['00000.json', '00000.tar', '00001.json', '00001.tar', 'index.json']
    for name in files:
        assert (source / 'one' / name).read_bytes() == (source / 'two' / name).read_bytes()


def test_missing_areas_are_completed(source):
    pytest.importorskip('webdataset')
    coco = json.loads((source / 'ann.json').read_text())
    for annotation in coco['annotations']:
        del annotation['area'], annotation['iscrowd']
    (source / 'ann.json').write_text(json.dumps(coco))
    coco_to_shards(source / 'ann.json', source / 'images', source / 'shards')
    text = (source / 'shards/00000.tar').read_bytes()
    assert text.count(b'"area": 20') == text.count(b'"iscrowd": 0') == 6


def test_refused(source):
    pytest.importorskip('webdataset')
    out = source / 'shards'
    (source / 'images/e.png').unlink()
    with pytest.raises(LaunchError, match='1 of 5 images .* such as e.png'):
        coco_to_shards(source / 'ann.json', source / 'images', out)
    (source / 'bad.json').write_text('[]')
    with pytest.raises(LaunchError, match='has no list of categories'):
        coco_to_shards(source / 'bad.json', source / 'images', out)
    coco = json.loads((source / 'ann.json').read_text())
    coco['images'][1]['annotated_category_ids'] = [7]
    (source / 'part.json').write_text(json.dumps(coco))
    with pytest.raises(LaunchError, match='1 images of .* have annotated_category_ids'):
        coco_to_shards(source / 'part.json', source / 'images', out)
    assert not out.exists()
    out.mkdir()
    (out / '00004.tar').write_bytes(b'')
    with pytest.raises(LaunchError, match='holds shards already'):
        coco_to_shards(source / 'ann.json', source / 'images', out)


def test_tool(source, repo_root):
    pytest.importorskip('webdataset')
    tool = repo_root / 'tools/dataset_converters/coco_to_shards.py'
    command = [sys.executable, tool, 'ann.json', 'images', 'out', '--shard-size', '2']
    first, again = (
        subprocess.run(command, cwd=source, capture_output=True, text=True) for _ in range(2)
    )
    assert first.returncode == 0, first.stderr
    assert first.stdout == 'out: 5 images in 3 shards\n'
    assert again.returncode != 0 and 'Traceback' not in again.stderr
    assert again.stderr.endswith('out holds shards already: remove them or give another folder.\n')
