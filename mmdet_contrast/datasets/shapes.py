"""A generated COCO-format detection data set: textured shapes on cluttered pictures."""

import contextlib
import json
import os
import shutil
import sys
import zlib
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple, Union

import cv2
import numpy as np
from mmengine.utils import track_iter_progress
from pycocotools import mask as coco_mask

from ._shape_drawing import draw_picture
from .converters._coco import write_json

try:
    import fcntl
except ImportError:  # not on Windows; there the caller sees to it that one process makes the data
    fcntl = None  # type: ignore[assignment]

__all__ = ['SHAPES_CLASSES', 'make_shapes', 'shapes_metainfo']

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
_PARTIAL = '.partial'
_LOCK = '.lock'
# To be raised whenever the drawing changes, so that older data sets are made anew.
_VERSION = 1
_DEFAULT_SHOTS = (5, 10)
_SMALLEST_PICTURE = 32


def shapes_metainfo(num_classes: int = 3) -> Dict[str, Any]:
    """``metainfo`` of the generated data set, for a ``CocoDataset``.

    Args:
        num_classes (int): Number of classes, 3 to 20.

    Returns:
        Dict[str, Any]: ``classes`` (tuple of str) and ``palette`` (list of RGB tuples).

    Raises:
        ValueError: If the number of classes is not between 3 and 20.
    """
    _check_classes(num_classes)
    hues = (np.arange(num_classes) * 180 / num_classes).astype(np.uint8)
    hsv = np.stack([hues, np.full_like(hues, 200), np.full_like(hues, 230)], axis=1)[None]
    palette = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0]
    return dict(
        classes=SHAPES_CLASSES[:num_classes],
        palette=[tuple(int(c) for c in colour) for colour in palette],
    )


def make_shapes(
    out_dir: Union[str, 'os.PathLike[str]'],
    num_images: Optional[Mapping[str, int]] = None,
    num_classes: int = 3,
    image_size: Union[int, Tuple[int, int]] = 128,
    seed: int = 0,
    shots: Optional[Sequence[int]] = None,
    progress: bool = False,
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
    anew; processes that ask at the same time wait for the first.

    Args:
        out_dir (str or PathLike): Folder of the data set. It is made, must be empty, or hold an
            earlier data set of this function, which is replaced if its arguments differ.
        num_images (Mapping[str, int], optional): Number of pictures of each split, by default
            800 'train', 100 'val', 100 'test'.
        num_classes (int): 3 to 20; the first ones of :data:`SHAPES_CLASSES` are used.
        image_size (int or Tuple[int, int]): Side, or width and height, in pixels; at least 32.
        seed (int): Seed of the whole data set.
        shots (Sequence[int], optional): Few-shot sets to make from the split 'train'. By default
            those of 5 and 10 for which it holds enough objects.
        progress (bool): Show a progress bar.

    Returns:
        Dict[str, str]: 'root' and, for each split and few-shot set ('train_5shot'), the path of its
        annotation file.

    Raises:
        ValueError: If an argument is out of its range, or 'train' holds too few objects for a
            number of shots that was asked for.
        FileExistsError: If ``out_dir`` holds files that this function did not make.

    Examples:
        >>> paths = make_shapes('data/shapes', num_classes=6)
        >>> sorted(paths)
        ['root', 'test', 'train', 'train_10shot', 'train_5shot', 'val']
    """
    arguments = _checked_arguments(num_images, num_classes, image_size, seed, shots)
    root = Path(out_dir)
    if root.exists() and not root.is_dir():
        raise FileExistsError(f'{root} is a file; give the path of a folder for the data set.')
    root.mkdir(parents=True, exist_ok=True)
    with _locked(root):
        stamp = _read_stamp(root)
        if stamp is not None and _is_up_to_date(root, stamp, arguments):
            return _paths(root, stamp['files'])
        foreign = {p.name for p in root.iterdir()} - {_LOCK, _PARTIAL}
        if stamp is None and foreign:
            raise FileExistsError(
                f'{root} holds files that are not a generated data set ({sorted(foreign)[0]!r} …); '
                'give an empty or a new folder.'
            )
        partial = root / _PARTIAL
        shutil.rmtree(partial, ignore_errors=True)
        # From here until the last line the stamp says that the data set is not finished.
        write_json(root / _STAMP, {'complete': False})
        files = _write_all(partial, arguments, progress)
        for old in root.iterdir():
            if old.name not in (_LOCK, _PARTIAL, _STAMP):
                shutil.rmtree(old) if old.is_dir() else old.unlink()
        for made in sorted(partial.iterdir()):
            os.replace(made, root / made.name)
        partial.rmdir()
        write_json(
            root / _STAMP, {'complete': True, 'arguments': arguments, 'files': files}, indent=1
        )
        return _paths(root, files)


def _check_classes(num_classes: int) -> None:
    if not 3 <= num_classes <= len(SHAPES_CLASSES):
        raise ValueError(f'num_classes must be 3 to {len(SHAPES_CLASSES)}, got {num_classes!r}.')


def _checked_arguments(
    num_images: Optional[Mapping[str, int]],
    num_classes: int,
    image_size: Union[int, Tuple[int, int]],
    seed: int,
    shots: Optional[Sequence[int]],
) -> Dict[str, Any]:
    """The arguments as plain JSON values, checked."""
    _check_classes(num_classes)
    if num_images is None:
        num_images = {'train': 800, 'val': 100, 'test': 100}
    counts = {str(name): int(count) for name, count in num_images.items()}
    for name, count in counts.items():
        if count < 1 or not name.replace('_', '').isalnum() or name == 'annotations':
            raise ValueError(
                'num_images must give at least 1 picture for each split, and splits are named in '
                f'letters, digits and underscores; got {name!r}: {count}.'
            )
    if not counts:
        raise ValueError("num_images is empty; give at least one split, such as {'train': 100}.")
    size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    if len(size) != 2 or min(size) < _SMALLEST_PICTURE:
        raise ValueError(
            f'image_size must be one side or (width, height) of at least {_SMALLEST_PICTURE} '
            f'pixels, got {image_size!r}.'
        )
    if seed < 0:
        raise ValueError(f'seed must be 0 or more, got {seed!r}.')
    if shots is not None:
        shots = sorted(set(shots))
        if shots and 'train' not in counts:
            raise ValueError("shots are taken from the split 'train', which num_images lacks.")
        if shots and shots[0] < 1:
            raise ValueError(f'shots must be 1 or more, got {shots[0]!r}.')
        shots = [int(k) for k in shots]
    return {
        'version': _VERSION,
        'num_images': counts,
        'num_classes': int(num_classes),
        'image_size': [int(side) for side in size],
        'seed': int(seed),
        'shots': shots,
    }


@contextlib.contextmanager
def _locked(root: Path) -> Iterator[None]:
    if fcntl is None:
        yield
        return
    with open(root / _LOCK, 'w') as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _read_stamp(root: Path) -> Optional[Dict[str, Any]]:
    path = root / _STAMP
    if not path.is_file():
        return None
    try:
        stamp = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError):
        stamp = {}
    return stamp if isinstance(stamp, dict) else {}


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


def _paths(root: Path, files: Mapping[str, str]) -> Dict[str, str]:
    return {'root': str(root), **{key: str(root / name) for key, name in files.items()}}


def _write_all(folder: Path, arguments: Dict[str, Any], progress: bool) -> Dict[str, str]:
    """Write pictures and annotations; annotation file by split, relative to the folder."""
    files = {}
    for split, count in arguments['num_images'].items():
        coco = _write_split(folder, split, count, arguments, progress)
        files[split] = f'annotations/instances_{split}.json'
        write_json(folder / files[split], coco)
        if split != 'train':
            continue
        wanted = arguments['shots']
        for k in _DEFAULT_SHOTS if wanted is None else wanted:
            few = _few_shot(coco, k, arguments['seed'], strict=wanted is not None)
            if few is not None:
                files[f'train_{k}shot'] = f'annotations/instances_train_{k}shot.json'
                write_json(folder / files[f'train_{k}shot'], few)
    return files


def _write_split(
    folder: Path, split: str, count: int, arguments: Dict[str, Any], progress: bool
) -> Dict[str, Any]:
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
    indices = range(count)
    # MMEngine's default is the stdout of the moment it was imported, which may be closed by now.
    bar = track_iter_progress(list(indices), file=sys.stdout) if progress else indices
    for index in bar:
        picture, objects = draw_picture(
            make_up, (width, height), arguments['seed'], zlib.crc32(split.encode()), index
        )
        name = f'{index:06d}.jpg'
        done, encoded = cv2.imencode('.jpg', picture, [cv2.IMWRITE_JPEG_QUALITY, 93])
        if not done:
            raise OSError(f'OpenCV could not encode {split}/{name}.')
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
    if progress:
        print()
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
            f'{SHAPES_CLASSES[scarce - 1]!r}; ask for more pictures or fewer shots.'
        )
    return {
        **coco,
        'images': [image for image in coco['images'] if image['id'] in chosen],
        'annotations': [a for a in coco['annotations'] if a['image_id'] in chosen],
    }
