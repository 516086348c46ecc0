"""COCO annotation files: what one holds, judged before a data set is built from it."""

import functools
import json
import os
import os.path as osp
import reprlib
from collections import Counter
from typing import Any, Dict, List, NamedTuple, Optional, Tuple, Type

from mmengine.fileio import LocalBackend, get_file_backend, load

from mmdet_contrast.utils.config import LaunchError
from mmdet_contrast.utils.files import PathLike, replacing

_ONE_OF = dict(categories='category', images='image', annotations='annotation')
_NUMBERS = frozenset((int, float))
# No picture is so large, and float32 still holds the squares of such coordinates.
_TOO_LARGE = 1e9
# Below, boxes of corners are not told from boxes that stick out of their image.
_MANY_BOXES = 10


class CocoFile(NamedTuple):
    """What a COCO annotation file holds.

    Attributes:
        path (str): The file.
        categories (dict[int, str]): Names of the categories by id, in the order of the file, in
            which MMDetection numbers the labels.
        images (dict[int | str, str]): File names of the images by id.
        sizes (dict[int | str, tuple[int, int]]): Width and height of the images in pixels, by id.
        usable (dict[int, int]): Number of boxes that a detector learns from, by category id.
        dropped (dict[str, int]): Number of the other boxes, by what is the matter with them.
        lacks_area (bool): Whether some annotation lacks ``area`` or ``iscrowd``, or has the id 0,
            with which pycocotools counts its box as not found. ``write_areas`` fixes all three.
    """

    path: str
    categories: Dict[int, str]
    images: Dict[Any, str]
    sizes: Dict[Any, Tuple[int, int]]
    usable: Dict[int, int]
    dropped: Dict[str, int]
    lacks_area: bool


def read_coco_file(path: PathLike, backend_args: Optional[Dict[str, Any]] = None) -> CocoFile:
    """Read a COCO annotation file, and judge whether a detector can learn from it.

    A file of the disk that has not changed since the last call is not read again, and one of
    another storage once in a process.

    Args:
        path (str | PathLike): The file, or its address in another storage.
        backend_args (dict, optional): Storage to read it from, as MMEngine has it.

    Returns:
        CocoFile: What it holds. ``CocoDataset`` and COCO's evaluation can use it as it is, or, with
        ``lacks_area``, what ``write_areas`` makes of it.

    Raises:
        LaunchError: If the file cannot be read, or holds something else than COCO annotations.
    """
    path = os.fspath(path)
    args = backend_args or {}
    identity: Tuple[Any, ...] = ()
    if isinstance(get_file_backend(path, backend_args=args), LocalBackend) and osp.isfile(path):
        stat = os.stat(path)
        identity = os.getcwd(), stat.st_mtime_ns, stat.st_size
    return _read(path, json.dumps(args, sort_keys=True), identity)


def write_areas(
    source: PathLike, target: PathLike, backend_args: Optional[Dict[str, Any]] = None
) -> None:
    """Write a copy of an annotation file in which nothing is missing that the evaluation needs.

    A missing ``area`` becomes width times height in square pixels, a missing ``iscrowd`` 0. An
    annotation with the id 0 gets a free one.

    Args:
        source (str | PathLike): The annotation file, which ``read_coco_file`` accepts.
        target (str | PathLike): The file to write; missing folders are made.
        backend_args (dict, optional): Storage to read it from, as MMEngine has it.
    """
    content = _load(os.fspath(source), backend_args)
    complete_annotations(content['annotations'])
    write_coco_file(target, content)


def write_coco_file(path: PathLike, content: Dict[str, Any]) -> None:
    """Write annotations that were read from a file, whole or not at all.

    Args:
        path (str | PathLike): The file to write; missing folders are made.
        content (dict): What it is to hold.
    """
    # not write_json, which refuses the NaN that a file may hold where nobody reads it
    with replacing(path) as temporary, open(temporary, 'w', encoding='utf-8') as stream:
        json.dump(content, stream)


def complete_annotations(annotations: List[Dict[str, Any]]) -> None:
    """Add what the evaluation needs, see :func:`write_areas`.

    Args:
        annotations (list[dict]): Those of a file; changed in place.
    """
    for annotation in annotations:
        _, _, width, height = annotation['bbox']
        annotation.setdefault('area', max(width, 0) * max(height, 0))
        annotation.setdefault('iscrowd', 0)
    ids = {annotation['id']: annotation for annotation in annotations}
    if 0 in ids:
        ids[0]['id'] = next(number for number in range(1, len(ids) + 1) if number not in ids)


@functools.lru_cache(maxsize=32)
def _read(path: str, backend_args: str, identity: Tuple[Any, ...]) -> CocoFile:
    return _judge(path, _load(path, json.loads(backend_args)))


def _load(path: str, backend_args: Optional[Dict[str, Any]]) -> Any:
    try:
        return load(path, file_format='json', backend_args=backend_args)
    except (OSError, ValueError, RecursionError) as error:
        raise LaunchError(
            f'annotation file {path!r} cannot be read ({error}), seen from {os.getcwd()}: give a '
            'COCO file, JSON in UTF-8.'
        ) from error


def _judge(path: str, content: Any) -> CocoFile:
    for section in _ONE_OF:
        # the files of a test whose answers are not public have no annotations
        given = content.get(section, []) if isinstance(content, dict) else None
        if type(given) is not list or not given and section != 'annotations':
            raise LaunchError(
                f'annotation file {path!r} has {"no" if given == [] else "no list of"} {section}: '
                f'give a COCO file, a JSON object with lists of {", ".join(_ONE_OF)}.'
            )
    annotations = content.get('annotations', [])
    categories = _judge_categories(path, content['categories'])
    images, sizes = _judge_images(path, content['images'], categories)
    usable, dropped, lacks_area = _judge_annotations(path, annotations, categories, sizes)
    return CocoFile(path, categories, images, sizes, usable, dropped, lacks_area)


def _judge_categories(path: str, entries: List[Any]) -> Dict[int, str]:
    _check_ids(path, 'categories', entries, (int,))
    owners: Dict[str, int] = {}
    for entry in entries:
        name = entry.get('name')
        if type(name) is not str or not name.strip():
            raise _fault(path, 'categories', entry, 'name', 'a name')
        if name in owners:
            raise LaunchError(
                f'annotation file {path!r}: categories {owners[name]} and {entry["id"]} are both '
                f'called {name!r}, which shifts the labels after them: remove or rename one.'
            )
        owners[name] = entry['id']
    return {key: name for name, key in owners.items()}


def _judge_images(
    path: str, entries: List[Any], categories: Dict[int, str]
) -> Tuple[Dict[Any, str], Dict[Any, Tuple[int, int]]]:
    _check_ids(path, 'images', entries, (int, str))
    images, sizes = {}, {}
    for entry in entries:
        name, key = entry.get('file_name'), entry['id']
        if type(key) is not type(entries[0]['id']):
            raise _fault(path, 'images', entry, 'id', f'of one type with {entries[0]["id"]!r}')
        if not name or type(name) is not str:
            raise _fault(path, 'images', entry, 'file_name', 'the name of a picture')
        for side in ('width', 'height'):
            value = entry.get(side)
            if type(value) not in _NUMBERS or not 1 <= value < _TOO_LARGE or value % 1:
                raise _fault(path, 'images', entry, side, 'a whole number of pixels')
        annotated = entry.get('annotated_category_ids')
        # a list of the ids: what is given may have no hash
        ids = list(categories)
        if annotated is not None and (
            type(annotated) is not list or any(each not in ids for each in annotated)
        ):
            expected = f'a list of ids of categories, of {reprlib.repr(ids)}'
            raise _fault(path, 'images', entry, 'annotated_category_ids', expected)
        images[key] = name
        sizes[key] = int(entry['width']), int(entry['height'])
    return images, sizes


def _judge_annotations(
    path: str,
    entries: List[Any],
    categories: Dict[int, str],
    sizes: Dict[Any, Tuple[int, int]],
) -> Tuple[Dict[int, int], Dict[str, int], bool]:
    _check_ids(path, 'annotations', entries, (int,))
    kind: Type[Any] = type(next(iter(sizes)))
    usable = dict.fromkeys(categories, 0)
    dropped: Dict[str, int] = Counter()
    lacks_area, fractions, corners, beyond = False, 0, 0, 0
    for entry in entries:
        get = entry.get
        image, category, box = get('image_id'), get('category_id'), get('bbox')
        if type(image) is not kind or image not in sizes:
            expected = f'an id of images, such as {next(iter(sizes))!r}'
            raise _fault(path, 'annotations', entry, 'image_id', expected)
        if type(category) is not int or category not in categories:
            expected = f'an id of categories, which are {reprlib.repr(list(categories))}'
            raise _fault(path, 'annotations', entry, 'category_id', expected)
        if (
            type(box) is not list
            or len(box) != 4
            # so that it is true of NaN, too
            or not all(type(v) in _NUMBERS and abs(v) < _TOO_LARGE for v in box)
        ):
            expected = '4 finite numbers: x, y, width, height in pixels'
            raise _fault(path, 'annotations', entry, 'bbox', expected)
        x, y, w, h = box
        area, crowd, ignore = get('area', w * h), get('iscrowd', 0), get('ignore')
        if type(area) not in _NUMBERS or not abs(area) < float('inf'):
            raise _fault(path, 'annotations', entry, 'area', 'a finite number of square pixels')
        if crowd not in (0, 1):
            raise _fault(path, 'annotations', entry, 'iscrowd', '0 or 1')
        if ignore not in (0, 1, None):
            raise _fault(path, 'annotations', entry, 'ignore', '0 or 1')
        if not entry['id'] or 'area' not in entry or 'iscrowd' not in entry:
            lacks_area = True

        width, height = sizes[image]
        fractions += 0 <= x <= 1 and 0 <= y <= 1 and 0 <= w <= 1 and 0 <= h <= 1
        corners += x < w <= width + 1 and y < h <= height + 1
        beyond += x + w > width + 1 or y + h > height + 1
        # what CocoDataset leaves out, and hands on to be ignored
        if ignore:
            dropped['annotations with ignore=1'] += 1
        elif crowd:
            dropped['crowd regions'] += 1
        elif w <= 0 or h <= 0:
            dropped['boxes without area'] += 1
        elif w < 1 or h < 1:
            dropped['boxes thinner than a pixel'] += 1
        elif area <= 0:
            dropped['annotations with an area of 0 or less'] += 1
        elif x >= width or y >= height or x + w <= 0 or y + h <= 0:
            dropped['boxes outside of their image'] += 1
        else:
            usable[category] += 1

    example = f'annotation {entries[0]["id"]} has {entries[0]["bbox"]}' if entries else ''
    largest = max(map(max, sizes.values()))
    if 0 < fractions == len(entries) and largest > 1 and any(max(e['bbox']) for e in entries):
        raise LaunchError(
            f'annotation file {path!r}: all boxes lie between 0 and 1 ({example}), but bbox must '
            'be x, y, width, height in pixels: multiply by the width and height of the image.'
        )
    if _MANY_BOXES <= corners == len(entries) and 2 * beyond > len(entries):
        raise LaunchError(
            f'annotation file {path!r}: {beyond} of {len(entries)} boxes reach beyond their image '
            f'and all look like two corners ({example}), but bbox must be x, y, width, height in '
            'pixels: write x2 - x1 and y2 - y1 in place of x2 and y2.'
        )
    return usable, dict(dropped), lacks_area


def _check_ids(path: str, section: str, entries: List[Any], kinds: Tuple[Type[Any], ...]) -> None:
    """Refuse entries without an id of their own."""
    places: Dict[Any, int] = {}
    for position, entry in enumerate(entries):
        key = entry.get('id') if type(entry) is dict else None
        if type(key) not in kinds:
            raise LaunchError(
                f'annotation file {path!r}: {section}[{position}] is {reprlib.repr(entry)}, but '
                f'must be a JSON object with a whole number{" or a string" * (str in kinds)} as id.'
            )
        if places.setdefault(key, position) != position:
            raise LaunchError(
                f'annotation file {path!r}: {section}[{places[key]}] and {section}[{position}] '
                f'have the same id {key!r}: give each {_ONE_OF[section]} an id of its own.'
            )


def _fault(path: str, section: str, entry: Dict[str, Any], key: str, expected: str) -> LaunchError:
    found = f'{key} {reprlib.repr(entry[key])}' if key in entry else f'no {key}'
    return LaunchError(
        f'annotation file {path!r}: {_ONE_OF[section]} {entry["id"]!r} has {found}, but {key} must '
        f'be {expected}.'
    )
