"""COCO annotation files: what one holds, judged before a data set is built from it."""

import functools
import json
import os
import os.path as osp
import reprlib
from collections import Counter
from typing import Any, Dict, List, NamedTuple, Optional, Tuple, Type, Union

from mmengine.fileio import LocalBackend, get_file_backend, get_text

from mmdet_contrast.utils.config import LaunchError
from mmdet_contrast.utils.files import PathLike, write_json

_ONE_OF = dict(categories='category', images='image', annotations='annotation')
_NUMBERS = frozenset((int, float))
# pycocotools keeps ids in arrays of 64 bits.
_IDS = range(-(2**63), 2**63)
# No picture is so large, and float32 still holds the squares of such coordinates.
_TOO_LARGE = 1e9
# Below, boxes of corners are not told from boxes that stick out of their image.
_MANY_BOXES = 10
_SHORT = reprlib.Repr()
_SHORT.maxstring = 80


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
            with which pycocotools counts its box as not found. ``write_areas`` mends all three.
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

    A file of the disk that has not changed since the last call is not read again.

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
    backend = get_file_backend(path, backend_args=args)
    if not isinstance(backend, LocalBackend) or not osp.isfile(path):
        return _judge(path, _load(path, backend_args))
    stat = os.stat(path)
    return _read_local(path, os.getcwd(), stat.st_mtime_ns, stat.st_size)


def write_areas(
    source: Union[CocoFile, PathLike],
    target: PathLike,
    backend_args: Optional[Dict[str, Any]] = None,
) -> None:
    """Write a copy of an annotation file in which nothing is missing that the evaluation needs.

    A missing ``area`` becomes width times height in square pixels, a missing ``iscrowd`` 0. An
    annotation with the id 0 gets a free one.

    Args:
        source (CocoFile | str | PathLike): The annotation file.
        target (str | PathLike): The file to write; missing folders are made.
        backend_args (dict, optional): Storage to read it from, as MMEngine has it.

    Raises:
        LaunchError: If ``read_coco_file`` refuses the file, or it holds what JSON does not have.
    """
    path = source.path if isinstance(source, CocoFile) else os.fspath(source)
    content = _load(path, backend_args)
    _judge(path, content)
    annotations = content['annotations']
    for annotation in annotations:
        _, _, width, height = annotation['bbox']
        annotation.setdefault('area', max(width, 0) * max(height, 0))
        annotation.setdefault('iscrowd', 0)
    ids = {annotation['id']: annotation for annotation in annotations}
    if 0 in ids:
        ids[0]['id'] = next(number for number in range(1, len(ids) + 1) if number not in ids)
    try:
        write_json(target, content)
    except ValueError as error:
        raise LaunchError(
            f'annotation file {path!r}: a copy with the missing area or iscrowd cannot be written '
            f'({error}): remove numbers that are not finite and broken characters.'
        ) from error


@functools.lru_cache(maxsize=16)
def _read_local(path: str, folder: str, mtime_ns: int, size: int) -> CocoFile:
    return _judge(path, _load(path, None))


def _load(path: str, backend_args: Optional[Dict[str, Any]]) -> Any:
    try:
        text = get_text(path, encoding='utf-8', backend_args=backend_args)
    except FileNotFoundError as error:
        raise LaunchError(
            f'annotation file {path!r} does not exist (looked in {os.getcwd()}).'
        ) from error
    except OSError as error:
        raise LaunchError(f'annotation file {path!r} cannot be read: {error}') from error
    except UnicodeDecodeError as error:
        raise _not_json(path, error) from error
    if not text.strip():
        raise LaunchError(f'annotation file {path!r} is empty: write it again.')
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _not_json(path, error) from error


def _not_json(path: str, error: Exception) -> LaunchError:
    return LaunchError(
        f'annotation file {path!r} is not a JSON file in UTF-8 ({error}): give a COCO annotation '
        'file.'
    )


def _judge(path: str, content: Any) -> CocoFile:
    if type(content) is not dict:
        raise LaunchError(
            f'annotation file {path!r} holds a {type(content).__name__}, '
            f'but a COCO file is a JSON object with {", ".join(_ONE_OF)}.'
        )
    # the files of a test whose answers are not public have none
    content.setdefault('annotations', [])
    for section in _ONE_OF:
        if type(content.get(section)) is not list:
            found = f'{section} {_short(content[section])}' if section in content else None
            raise LaunchError(
                f'annotation file {path!r} has {found or f"no {section}"}, '
                f'but a COCO file has lists of {", ".join(_ONE_OF)}'
                + (f', of which it has {_short(sorted(content))}.' if not found else '.')
            )
    categories = _judge_categories(path, content['categories'], content['annotations'])
    images, sizes = _judge_images(path, content['images'])
    usable, dropped, lacks_area = _judge_annotations(
        path, content['annotations'], categories, sizes
    )
    return CocoFile(path, categories, images, sizes, usable, dropped, lacks_area)


def _judge_categories(path: str, entries: List[Any], annotations: List[Any]) -> Dict[int, str]:
    _check_ids(path, 'categories', entries, (int,))
    owners: Dict[str, int] = {}
    for position, entry in enumerate(entries):
        name = entry.get('name')
        if not _is_text(name) or not name.strip():
            raise _fault(path, 'categories', position, entry, 'name', 'a name')
        if name in owners:
            twins = [owners[name], entry['id']]
            users = [a.get('category_id') for a in annotations if type(a) is dict]
            unused = [key for key in twins if key not in users]
            advice = 'give each a name of its own, in metainfo, too'
            if unused:
                advice = f'category {unused[0]} has no annotation: remove it from the file'
            raise LaunchError(
                f'annotation file {path!r}: categories {twins[0]} and {twins[1]} are both called '
                f'{_short(name)}, which shifts the labels after them; {advice}.'
            )
        owners[name] = entry['id']
    return {key: name for name, key in owners.items()}


def _judge_images(
    path: str, entries: List[Any]
) -> Tuple[Dict[Any, str], Dict[Any, Tuple[int, int]]]:
    _check_ids(path, 'images', entries, (int, str))
    kind = type(entries[0]['id'])
    images, sizes = {}, {}
    for position, entry in enumerate(entries):
        name, key = entry.get('file_name'), entry['id']
        if type(key) is not kind:
            raise LaunchError(
                f'annotation file {path!r}: images have the ids {_short(entries[0]["id"])} and '
                f'{_short(key)}: write all of them as numbers or all as strings.'
            )
        if not name or not _is_text(name):
            raise _fault(path, 'images', position, entry, 'file_name', 'the name of a picture')
        for side in ('width', 'height'):
            value = entry.get(side)
            if type(value) not in _NUMBERS or not 1 <= value < _TOO_LARGE or value % 1:
                raise _fault(path, 'images', position, entry, side, 'a whole number of pixels')
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
    for position, entry in enumerate(entries):
        get = entry.get
        image, category, box = get('image_id'), get('category_id'), get('bbox')
        if type(image) is not kind or image not in sizes:
            raise _dangling(path, position, entry, 'image_id', 'images', list(sizes))
        if type(category) is not int or category not in categories:
            raise _dangling(path, position, entry, 'category_id', 'categories', list(categories))
        if type(box) is not list or len(box) != 4 or not _NUMBERS.issuperset(map(type, box)):
            raise _no_box(path, position, entry)
        x, y, w, h = box
        # not written as `>=`, so that it is true of NaN, too
        if not (
            abs(x) < _TOO_LARGE
            and abs(y) < _TOO_LARGE
            and abs(w) < _TOO_LARGE
            and abs(h) < _TOO_LARGE
        ):
            raise _no_box(path, position, entry)
        area, crowd, ignore = get('area', w * h), get('iscrowd', 0), get('ignore')
        if type(area) not in _NUMBERS or not abs(area) < float('inf'):
            raise _fault(
                path, 'annotations', position, entry, 'area', 'a finite number of square pixels'
            )
        if crowd not in (0, 1):
            raise _fault(path, 'annotations', position, entry, 'iscrowd', '0 or 1')
        if ignore not in (0, 1, None):
            raise _fault(path, 'annotations', position, entry, 'ignore', '0 or 1')
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

    example = f'annotation {entries[0]["id"]} has {_short(entries[0]["bbox"])}' if entries else ''
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
    if not entries and section != 'annotations':
        raise LaunchError(f'annotation file {path!r} has no {section}: its list is empty.')
    expected = 'a whole number of 64 bits' + (' or a printable string' if str in kinds else '')
    places: Dict[Any, int] = {}
    for position, entry in enumerate(entries):
        if type(entry) is not dict:
            raise LaunchError(
                f'annotation file {path!r}: {section}[{position}] is {_short(entry)}, but must be '
                'a JSON object.'
            )
        key = entry.get('id')
        good = key in _IDS if type(key) is int else type(key) in kinds and _is_text(key)
        if not good:
            raise _fault(path, section, position, entry, 'id', expected)
        if places.setdefault(key, position) != position:
            raise LaunchError(
                f'annotation file {path!r}: {section}[{places[key]}] and {section}[{position}] '
                f'have the same id {_short(key)}: give each {_ONE_OF[section]} an id of its own.'
            )


def _is_text(value: Any) -> bool:
    """Tell whether a value is a string that can be printed, and be part of a path."""
    return (
        type(value) is str
        and '\0' not in value
        and (value.isascii() or value.encode('utf-8', 'ignore').decode() == value)
    )


def _name(section: str, position: int, entry: Dict[str, Any]) -> str:
    key = entry.get('id')
    if type(key) in (int, str):
        return f'{_ONE_OF[section]} {_short(key)}'
    return f'{section}[{position}]'


def _short(value: Any) -> str:
    return _SHORT.repr(value)


def _fault(
    path: str, section: str, position: int, entry: Dict[str, Any], key: str, expected: str
) -> LaunchError:
    found = f'{key} {_short(entry[key])}' if key in entry else f'no {key}'
    return LaunchError(
        f'annotation file {path!r}: {_name(section, position, entry)} has {found}, but {key} must '
        f'be {expected}.'
    )


def _no_box(path: str, position: int, entry: Dict[str, Any]) -> LaunchError:
    expected = '4 finite numbers: x, y, width, height in pixels; mend or remove the annotation'
    return _fault(path, 'annotations', position, entry, 'bbox', expected)


def _dangling(
    path: str, position: int, entry: Dict[str, Any], key: str, section: str, known: List[Any]
) -> LaunchError:
    """Describe an annotation whose image or category does not exist."""
    value = entry.get(key)
    twin = next((other for other in known if _same_but_for_type(value, other)), None)
    if twin is not None:
        return LaunchError(
            f'annotation file {path!r}: {_name("annotations", position, entry)} has {key} '
            f'{_short(value)}, but the id in {section} is {_short(twin)}: write both as the same '
            'whole number.'
        )
    expected = (
        f'an id of {section}, which are {_short(known)}; add it there or remove the annotation'
    )
    return _fault(path, 'annotations', position, entry, key, expected)


def _same_but_for_type(first: Any, second: Any) -> bool:
    if first == second or str(first) == str(second):
        return True
    try:
        return {type(first), type(second)} == {int, str} and int(first) == int(second)
    except ValueError:
        return False
