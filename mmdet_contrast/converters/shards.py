"""A COCO annotation file and its images, as tar shards."""

import importlib.util
import json
import math
import os.path as osp
import tarfile
from collections import defaultdict
from pathlib import Path
from typing import Any, Dict, List, Sequence

import numpy as np
from tqdm import tqdm

from mmdet_contrast.datasets.coco_file import complete_annotations, read_coco_file
from mmdet_contrast.datasets.shard_dataset import INDEX_FILE, contents_of
from mmdet_contrast.utils.config import LaunchError
from mmdet_contrast.utils.files import PathLike, write_json


def coco_to_shards(
    ann_file: PathLike, img_dir: PathLike, out_dir: PathLike, shard_size: int = 1000
) -> Dict[str, int]:
    """Write images and annotations into WebDataset's tar files, for :class:`ShardDataset`.

    A sample is the image file as it is, and a ``.json`` with its entry in ``images`` and its
    annotations. Samples come in random order, always the same, so that each shard resembles the
    whole. Beside each ``00000.tar`` a ``00000.json`` tells where its samples lie; ``index.json``,
    written last, names shards and categories.

    Args:
        ann_file (str | PathLike): COCO annotations.
        img_dir (str | PathLike): Folder of the images.
        out_dir (str | PathLike): Folder to write, without shards so far.
        shard_size (int): Images in a shard; the last one has fewer.

    Returns:
        dict[str, int]: Number of 'images' and of 'shards'.

    Raises:
        LaunchError: If the folder holds shards, images are missing or annotate some of the classes
            only, the file does not hold COCO annotations, or webdataset is not installed.
    """
    if importlib.util.find_spec('webdataset') is None:
        raise LaunchError('shards are written by the package webdataset: pip install webdataset.')
    if shard_size < 1:
        raise LaunchError(f'shard_size is {shard_size} images: give 1 or more.')
    out, folder = Path(out_dir), Path(img_dir)
    if (out / INDEX_FILE).exists() or any(out.glob('*.tar')):
        raise LaunchError(f'{out} holds shards already: remove them or give another folder.')
    read_coco_file(ann_file)
    with open(ann_file, encoding='utf-8') as stream:
        coco = json.load(stream)
    images, found = coco['images'], coco.get('annotations', [])
    complete_annotations(found)
    partly = sum('annotated_category_ids' in image for image in images)
    if partly:
        raise LaunchError(
            f'{partly} images of {ann_file} have annotated_category_ids, which distillation reads '
            'from the annotation file: train with CocoDataset from it.'
        )
    missing = [x['file_name'] for x in images if not osp.isfile(folder / x['file_name'])]
    if missing:
        raise LaunchError(
            f'{len(missing)} of {len(images)} images of {ann_file} are not in {folder}, such as '
            f'{missing[0]}: give their folder, or take them out of the file.'
        )
    annotations: Dict[Any, List[Any]] = defaultdict(list)
    for annotation in found:
        annotations[annotation['image_id']].append(annotation)
    out.mkdir(parents=True, exist_ok=True)
    order = np.random.default_rng(0).permutation(len(images))
    shards = []
    for number in tqdm(range(math.ceil(len(images) / shard_size)), 'shards', disable=None):
        numbers = order[number * shard_size : (number + 1) * shard_size]
        chosen = [images[i] for i in numbers]
        path = out / f'{number:05d}.tar'
        samples = [(image, annotations.get(image['id'], [])) for image in chosen]
        _write_shard(path, folder, samples, number * shard_size)
        shards.append(dict(file=path.name, samples=len(chosen)))
    index = dict(
        source=osp.abspath(ann_file),
        categories=[dict(id=x['id'], name=x['name']) for x in coco['categories']],
        shards=shards,
    )
    write_json(out / INDEX_FILE, index, indent=1)
    return dict(images=len(images), shards=len(shards))


def _write_shard(path: Path, folder: Path, samples: Sequence[Any], first: int) -> None:
    """Write a tar file, and beside it what it holds."""
    import webdataset

    # the same time in all, so that the same data give the same files
    with webdataset.TarWriter(str(path), encoder=False, mtime=0) as writer:
        for i, (image, annotations) in enumerate(samples):
            name = Path(image['file_name'])
            content = json.dumps(dict(image=image, annotations=annotations), ensure_ascii=False)
            writer.write(
                {
                    '__key__': f'{first + i:09d}',
                    name.suffix[1:].lower() or 'image': (folder / name).read_bytes(),
                    'json': content.encode(),
                }
            )
    places: Dict[str, List[int]] = defaultdict(list)
    with tarfile.open(path) as tar:
        for member in tar:
            kind = 'json' if member.name.endswith('.json') else 'image'
            places[f'{kind}_offset'].append(member.offset_data)
            places[f'{kind}_size'].append(member.size)
    write_json(
        contents_of(str(path)),
        dict(
            places,
            width=[image['width'] for image, _ in samples],
            height=[image['height'] for image, _ in samples],
            categories=[sorted({x['category_id'] for x in found}) for _, found in samples],
        ),
    )
