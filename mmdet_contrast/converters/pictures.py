"""The pictures of a folder, as training will see them, with their annotation files."""

import os
import os.path as osp
import re
from collections import Counter
from pathlib import Path
from typing import Callable, Collection, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
from mmdet.utils.misc import IMG_EXTENSIONS
from tqdm import tqdm

from mmdet_contrast.utils.config import LaunchError
from mmdet_contrast.utils.files import PathLike, check_image, load_image

from .coco import ConversionReport, RawBox, RawImage

# What a line of a split may have after the name; other dots are part of it.
_ENDINGS = (*IMG_EXTENSIONS, '.xml', '.txt')
# Whether a class is in the image, after its name.
_COLUMN = re.compile(r'\s+(-1|0|1)$')
# Of 256 grey levels; in fewer a picture is as good as black.
_FEW_LEVELS = 32


class Annotation(NamedTuple):
    """What the annotation file of an image holds.

    Attributes:
        boxes (List[RawBox]): The boxes.
        file_name (str): The image's name, as far as the file states it.
        size (Tuple[float, float], optional): Its width and height, as far as the file states them.
    """

    boxes: List[RawBox]
    file_name: str = ''
    size: Optional[Tuple[float, float]] = None


def read_images(
    ann_dir: Path,
    suffix: str,
    img_dir: Path,
    parse: Callable[[Path, str], Annotation],
    report: ConversionReport,
    split: Optional[PathLike] = None,
    missing_annotations: str = 'leave_out',
) -> List[RawImage]:
    """Read the images below a folder with their annotation files, which have the same names.

    Args:
        ann_dir (Path): Folder of the annotation files, searched with its subfolders.
        suffix (str): Their ending, in small letters.
        img_dir (Path): Folder of the images, searched with its subfolders.
        parse (Callable): From an annotation file and its name for the report to what it holds.
        report (ConversionReport): Whatever is left out, or doubtful, is added to it.
        split (PathLike, optional): Text file with one image name a line. None takes every image.
        missing_annotations (str): What becomes of an image without an annotation file: 'leave_out',
            or 'empty' to keep it as an image without objects.

    Returns:
        List[RawImage]: The images that training can read.

    Raises:
        LaunchError: If a folder does not exist.
        FileNotFoundError: If the split does not exist.
    """
    keep = dict(empty=True, leave_out=False)[missing_annotations]
    files = _find_files(ann_dir, (suffix,), report, 'ambiguous_annotation')
    pictures = _find_files(img_dir, IMG_EXTENSIONS, report, 'ambiguous_image')
    # Without a list of images, every image in the folder is meant to have an annotation.
    keys = sorted({*files, *pictures})
    listed = keys if split is None else _read_split(Path(split), report, keys)
    images = []
    for key in tqdm(listed, 'reading', disable=None):
        label = key + suffix
        found = Annotation([])
        if key in files:
            try:
                found = parse(ann_dir / files[key], label)
            except LaunchError:
                raise
            except (LookupError, OSError, SyntaxError, ValueError) as error:
                report.add('unreadable_annotation', label, str(error), 'image left out')
                continue
        else:
            action = 'image kept, no boxes' if keep else 'image left out'
            report.add('missing_annotation', label, 'there is no such file', action)
            if not keep:
                continue
        # The base name only: an annotation must not reach outside the image folder.
        named = found.file_name.replace('\\', '/').rsplit('/', 1)[-1]
        name = pictures.get(key) or named
        if not name or not (img_dir / name).is_file():
            detail = f'neither {key!r} nor {named!r} is an image of the folder'
            report.add('missing_image', label, detail, 'image left out')
            continue
        if named and Path(name).stem not in (named, osp.splitext(named)[0]):
            action = 'image named as the annotation file taken'
            report.add('file_name_differs', label, f'it says {named!r}', action)
        size = _size(img_dir, name, report)
        if size is None:
            continue
        if found.size not in (None, size):
            stated = ' x '.join(f'{side:g}' for side in found.size or ())
            detail = f'it says {stated}, the image is {size[0]} x {size[1]}'
            report.add('size_differs', label, detail, "image's size taken, boxes unchanged")
        images.append(RawImage(name, *size, found.boxes, label))
    return images


def _find_files(
    folder: Path, suffixes: Sequence[str], report: ConversionReport, ambiguous: str
) -> Dict[str, str]:
    """Give relative path without suffix → relative path (POSIX), sorted."""
    if not folder.is_dir():
        raise LaunchError(f'{folder} is not a folder.')
    names: Dict[str, str] = {}
    for path in sorted(_walk(folder)):
        # the list of classes is what annotation tools leave beside the annotations
        if path.suffix.lower() not in suffixes or not path.is_file() or path.name == 'classes.txt':
            continue
        relative = path.relative_to(folder)
        name, key = relative.as_posix(), relative.with_suffix('').as_posix()
        try:
            name.encode()
        except UnicodeEncodeError:
            report.add('unreadable_name', ascii(name), 'the name is not in UTF-8', 'file left out')
            continue
        if names.setdefault(key, name) != name:
            report.add(ambiguous, names[key], f'also {name}', 'first taken')
    return names


def _walk(folder: Path) -> Iterator[Path]:
    """Give the files below a folder, in linked folders too, as the data sets find them."""
    # a link to one of these would give its files again, or lead round in circles
    seen = {Path(root).resolve() for root, _, _ in os.walk(folder)}
    for root, folders, files in os.walk(folder, followlinks=True):
        here = Path(root)
        links = {name: (here / name).resolve() for name in folders if (here / name).is_symlink()}
        folders[:] = [name for name in folders if links.get(name) not in seen]
        seen.update(links.values())
        yield from (here / name for name in files)


def _read_split(path: Path, report: ConversionReport, known: Collection[str]) -> List[str]:
    """Read image names from an ImageSets file, without the -1/0/1 column of per-class sets."""
    try:
        lines = list(filter(None, map(str.strip, path.read_text('utf-8-sig').splitlines())))
    except UnicodeDecodeError as error:
        raise LaunchError(f'{path} is not text in UTF-8 ({error}): save it as such.') from error
    counts = Counter(key.rsplit('/', 1)[-1] for key in known)
    bare = {key.rsplit('/', 1)[-1]: key for key in known}
    # of several images in subfolders the name alone means none
    bare = {name: key for name, key in bare.items() if counts[name] == 1}
    known = set(known)
    # A name may end in a number. In a set of a class every line has a column, and none is a name.
    if all(_COLUMN.search(line) and _find_name(line, known, bare) is None for line in lines):
        lines = [_COLUMN.sub('', line) for line in lines]
    names = set()
    for line in lines:
        name = _find_name(line, known, bare) or line
        if name in names:
            report.add('duplicate_image', path.name, f'{name!r} is listed again', 'taken once')
        names.add(name)
    return sorted(names)


def _find_name(line: str, known: Collection[str], bare: Dict[str, str]) -> Optional[str]:
    """Find the image that a line names with more folders or none, with its ending or without."""
    parts = line.replace('\\', '/').split('/')
    for start in range(len(parts)):
        name = '/'.join(parts[start:])
        stem, ending = osp.splitext(name)
        for spelling in (name, stem) if ending.lower() in _ENDINGS else (name,):
            if spelling in known:
                return spelling
            if spelling in bare and len(parts) == 1:
                return bare[spelling]
    return None


def _size(folder: Path, name: str, report: ConversionReport) -> Optional[Tuple[int, int]]:
    """Give width and height of an image; None where training can make nothing of it (reported)."""
    try:
        orientation = check_image(folder / name)
        picture = load_image(folder / name)
    except OSError as error:
        report.add('unreadable_image', name, str(error), 'image left out')
        return None
    levels = _contrast(picture)
    if levels < _FEW_LEVELS:
        stored = load_image(folder / name, 'unchanged')
        # else nothing is lost, and other pixels are looked at where it was rotated
        if stored.dtype != np.uint8 and _contrast(stored) > levels:
            detail = (
                f'of its {stored.dtype} values training sees {int(levels) + 1} of 256 grey levels: '
                'scale them to 8 bits'
            )
            report.add('content_lost', name, detail, 'image left out')
            return None
    if orientation != 1:
        detail = f'EXIF orientation {orientation}: are the boxes drawn on the rotated picture?'
        report.add('rotated_image', name, detail, 'size after rotation taken')
    height, width = picture.shape[:2]
    return width, height


def _contrast(picture: np.ndarray) -> float:
    """Give the range of values in the channel where it is widest, without odd pixels."""
    # a part of the pixels is enough, and much faster
    step = max(1, min(picture.shape[:2]) // 100)
    low, high = np.percentile(picture[::step, ::step], (1, 99), axis=(0, 1))
    # the objects may be so small that they are among the odd pixels
    return float(np.max(high - low) or np.max(np.ptp(picture, axis=(0, 1))))
