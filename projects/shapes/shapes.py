"""A generated COCO-format detection data set: textured shapes on cluttered pictures."""

import json
import os
import shutil
import sys
import zlib
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

import cv2
import numpy as np
from pycocotools import mask as coco_mask
from shape_drawing import draw_picture
from tqdm import tqdm

# (texture, outline) of each class: twenty textures and ten outlines, so that the inside of an
# object tells its class and its outline does not suffice beyond ten classes.
_MAKE_UP: Tuple[Tuple[str, str], ...] = (
    ('striped', 'disc'),
    ('checkered', 'square'),
    ('dotted', 'triangle'),
    ('ringed', 'star'),
    ('zigzag', 'heart'),
    ('meshed', 'hexagon'),
    ('spoked', 'flower'),
    ('bricked', 'cross'),
    ('wavy', 'diamond'),
    ('speckled', 'shield'),
    ('barred', 'square'),
    ('slanted', 'disc'),
    ('scaled', 'heart'),
    ('argyle', 'triangle'),
    ('spiral', 'hexagon'),
    ('bubbled', 'star'),
    ('crossed', 'diamond'),
    ('halved', 'flower'),
    ('mottled', 'cross'),
    ('quartered', 'shield'),
)
SHAPES_CLASSES: Tuple[str, ...] = tuple(f'{t}_{o}' for t, o in _MAKE_UP)

_STAMP = 'shapes.json'
# To be raised whenever the drawing changes, so that older data sets are made anew.
_VERSION = 1
_DEFAULT_SHOTS = (5, 10)


def make_shapes(
    out_dir: Union[str, 'os.PathLike[str]'],
    num_images: Optional[Mapping[str, int]] = None,
    num_classes: int = 3,
    image_size: Union[int, Tuple[int, int]] = 128,
    seed: int = 0,
    shots: Optional[Sequence[int]] = None,
) -> Dict[str, str]:
    """Make a small detection data set in COCO format, or recognise the one that is there.

    Classes differ in texture and outline; colour tells nothing. Objects measure from 8.5 % to 85 %
    of the picture's shorter side (log-uniform), overlap (later ones in front), may leave the
    picture by up to 40 % of their area, and lie among clutter of no class under varied light, blur
    and noise. About 5 % of the pictures hold no object, 3 % one that fills them, and 5 % a heap of
    small objects annotated as one ``iscrowd`` region. Every object that is drawn is annotated: one
    that would hide more than half of another's pixels is placed elsewhere. ``bbox``, ``area`` and
    ``segmentation`` (RLE) describe the *visible* pixels exactly.

    Written are ``annotations/instances_{split}.json``, the pictures ``{split}/000000.jpg`` …, for
    each number of shots ``annotations/instances_train_{k}shot.json`` (whole pictures of the first
    split with at least k objects of every class; smaller sets are contained in larger ones), and
    the stamp ``shapes.json``. Each picture depends on the seed, its split and its number alone: the
    same arguments give the same bytes, and asking for more pictures leaves the first ones as they
    were. A data set with the same arguments is left alone; an unfinished or damaged one is made
    anew.

    Args:
        out_dir (str or PathLike): Folder of the data set. It is made, must be empty, or hold an
            earlier data set of this function, which is replaced if its arguments differ.
        num_images (Mapping[str, int], optional): Number of pictures of each split, by default
            800 'train', 100 'val', 100 'test'.
        num_classes (int): 3 to 20; the first ones of :data:`SHAPES_CLASSES` are used.
        image_size (int or Tuple[int, int]): Side, or width and height, in pixels.
        seed (int): Seed of the whole data set.
        shots (Sequence[int], optional): Few-shot sets to make from the split 'train'. By default
            those of 5 and 10 for which it holds enough objects.

    Returns:
        Dict[str, str]: 'root' and, for each split and few-shot set ('train_5shot'), the path of its
        annotation file.

    Raises:
        ValueError: If 'train' holds too few objects for a number of shots that was asked for.
        FileExistsError: If ``out_dir`` holds files that this function did not make.

    Examples:
        >>> paths = make_shapes('data/shapes', num_classes=6)
        >>> sorted(paths)
        ['root', 'test', 'train', 'train_10shot', 'train_5shot', 'val']
    """
    if num_images is None:
        num_images = {'train': 800, 'val': 100, 'test': 100}
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    arguments = {
        'version': _VERSION,
        'num_images': dict(num_images),
        'num_classes': num_classes,
        'image_size': list(size),
        'seed': seed,
        'shots': None if shots is None else sorted(set(shots)),
    }
    root = Path(out_dir)
    root.mkdir(parents=True, exist_ok=True)
    stamp = _read_stamp(root)
    if stamp is not None and _is_up_to_date(root, stamp, arguments):
        return _paths(root, stamp['files'])
    if stamp is None and any(root.iterdir()):
        raise FileExistsError(
            f'{root} holds files that are not a generated data set: give an empty or a new folder.'
        )
    # From here until the last line the stamp says that the data set is not finished.
    _write_json(root / _STAMP, {'complete': False})
    for old in root.iterdir():
        if old.name != _STAMP:
            shutil.rmtree(old) if old.is_dir() else old.unlink()
    files = _write_all(root, arguments)
    _write_json(root / _STAMP, {'complete': True, 'arguments': arguments, 'files': files}, indent=1)
    return _paths(root, files)


def _read_stamp(root: Path) -> Optional[Dict[str, Any]]:
    path = root / _STAMP
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except ValueError:  # cut off while it was written
        return {}


def _is_up_to_date(root: Path, stamp: Dict[str, Any], arguments: Dict[str, Any]) -> bool:
    if not stamp.get('complete') or stamp.get('arguments') != arguments:
        return False
    if not all((root / name).is_file() for name in stamp['files'].values()):
        return False
    for split, count in arguments['num_images'].items():
        folder = root / split
        if not folder.is_dir() or len(os.listdir(folder)) != count:
            return False
    return True


def _write_json(path: Path, content: Any, indent: Optional[int] = None) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=indent), encoding='utf-8')


def _paths(root: Path, files: Mapping[str, str]) -> Dict[str, str]:
    return {'root': str(root), **{key: str(root / name) for key, name in files.items()}}


def _write_all(folder: Path, arguments: Dict[str, Any]) -> Dict[str, str]:
    """Write pictures and annotations; annotation file by split, relative to the folder."""
    files = {}
    for split, count in arguments['num_images'].items():
        coco = _write_split(folder, split, count, arguments)
        files[split] = f'annotations/instances_{split}.json'
        _write_json(folder / files[split], coco)
        if split != 'train':
            continue
        wanted = arguments['shots']
        for k in _DEFAULT_SHOTS if wanted is None else wanted:
            few = _few_shot(coco, k, arguments['seed'], strict=wanted is not None)
            if few is not None:
                files[f'train_{k}shot'] = f'annotations/instances_train_{k}shot.json'
                _write_json(folder / files[f'train_{k}shot'], few)
    return files


def _write_split(folder: Path, split: str, count: int, arguments: Dict[str, Any]) -> Dict[str, Any]:
    (folder / split).mkdir(parents=True)
    width, height = arguments['image_size']
    make_up = [(outline, texture) for texture, outline in _MAKE_UP[: arguments['num_classes']]]
    coco: Dict[str, Any] = {
        'info': {'description': 'textured shapes, generated by mmdet_contrast', 'split': split},
        'images': [],
        'annotations': [],
        'categories': [
            {'id': i + 1, 'name': name, 'supercategory': 'shape'}
            for i, name in enumerate(SHAPES_CLASSES[: arguments['num_classes']])
        ],
    }
    # where it is no terminal every update stays, so there are few
    interval = 0.1 if sys.stderr.isatty() else 5
    for index in tqdm(range(count), desc=split, mininterval=interval):
        picture, objects = draw_picture(
            make_up, (width, height), arguments['seed'], zlib.crc32(split.encode()), index
        )
        name = f'{index:06d}.jpg'
        _, encoded = cv2.imencode('.jpg', picture, [cv2.IMWRITE_JPEG_QUALITY, 93])
        (folder / split / name).write_bytes(encoded.tobytes())
        coco['images'].append(
            {'id': index + 1, 'file_name': name, 'width': width, 'height': height}
        )
        for item in objects:
            coco['annotations'].append(
                {
                    'id': len(coco['annotations']) + 1,
                    'image_id': index + 1,
                    'category_id': item.label + 1,
                    **_region(item.mask),
                    'iscrowd': int(item.crowd),
                }
            )
    return coco


def _region(mask: np.ndarray) -> Dict[str, Any]:
    """``bbox``, ``area`` and RLE ``segmentation`` of a (H, W) bool mask."""
    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {
        'bbox': [float(value) for value in coco_mask.toBbox(rle)],
        'area': float(coco_mask.area(rle)),
        'segmentation': {'size': list(rle['size']), 'counts': rle['counts'].decode('ascii')},
    }


def _few_shot(coco: Dict[str, Any], k: int, seed: int, strict: bool) -> Optional[Dict[str, Any]]:
    """Pictures, in one seeded order for every k, until each class has k objects that are no crowd.

    As every number of shots walks the same order with the same rule, smaller sets are contained in
    larger ones: a picture taken for k lacks a class that is still lacking for more than k.
    """
    by_image: Dict[int, List[Dict[str, Any]]] = {image['id']: [] for image in coco['images']}
    for annotation in coco['annotations']:
        by_image[annotation['image_id']].append(annotation)
    order = np.random.default_rng(np.random.SeedSequence([seed, 0xFE3])).permutation(
        [image['id'] for image in coco['images']]
    )
    have = {category['id']: 0 for category in coco['categories']}
    chosen = set()
    for shot in range(1, k + 1):
        # One object more at a time makes the sets nested by construction.
        for image_id in order:
            if min(have.values()) >= shot:
                break
            if int(image_id) in chosen:
                continue
            objects = [a['category_id'] for a in by_image[int(image_id)] if not a['iscrowd']]
            if any(have[c] < shot for c in objects):
                chosen.add(int(image_id))
                for c in objects:
                    have[c] += 1
    if min(have.values()) < k:
        if not strict:
            return None
        scarce = min(have, key=lambda c: have[c])
        raise ValueError(
            f'{k} shots were asked for, but train holds only {have[scarce]} objects of '
            f'{SHAPES_CLASSES[scarce - 1]!r}: ask for more pictures or fewer shots.'
        )
    return {
        **coco,
        'images': [image for image in coco['images'] if image['id'] in chosen],
        'annotations': [a for a in coco['annotations'] if a['image_id'] in chosen],
    }
