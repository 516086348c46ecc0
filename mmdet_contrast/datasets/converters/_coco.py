"""What the converters share: image sizes, box checks, COCO assembling, atomic JSON."""

import json
import math
import os
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

from PIL import Image

from .report import ConversionReport

PathLike = Union[str, 'os.PathLike[str]']
Box = Tuple[float, float, float, float]

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')
# CocoDataset skips boxes thinner than this without a word, so they are left out here, with one.
_THINNEST = 1.0
# A box may leave the picture by a pixel merely because tools count pixels differently.
_PIXEL = 1.0
_EXIF_ORIENTATION = 0x0112


class RawBox(NamedTuple):
    """A box as read: class name, corners in pixels, and whether it is to be ignored."""

    name: str
    corners: Box
    ignore: bool = False
    extra: Optional[Dict[str, Any]] = None


class RawImage(NamedTuple):
    """An image as read, with the file that its findings are reported under."""

    file_name: str
    width: int
    height: int
    boxes: List[RawBox]
    source: str


def write_json(path: PathLike, content: Any, indent: Optional[int] = None) -> None:
    """Write a JSON file so that at any moment the old or the whole new file is there.

    Args:
        path (str or PathLike): The file to write; missing folders are made.
        content (Any): JSON-serialisable content.
        indent (int, optional): Spaces of indentation; None writes one line.

    Raises:
        ValueError: If the content holds NaN or infinity, which JSON does not have.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The same folder, because os.replace is atomic within one file system only.
    temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
    try:
        with open(temporary, 'w', encoding='utf-8') as stream:
            json.dump(content, stream, indent=indent, allow_nan=False, ensure_ascii=False)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        if temporary.exists():
            temporary.unlink()


def image_size(path: PathLike, verify: bool) -> Tuple[int, int, int]:
    """Size of an image as the training pipeline will see it.

    Args:
        path (str or PathLike): The image file.
        verify (bool): Decode the whole picture, which finds truncated files; otherwise only the
            header is read.

    Returns:
        Tuple[int, int, int]: Width and height in pixels *after* the camera's EXIF rotation, which
        MMDetection's loader applies, and the EXIF orientation (1 = upright).

    Raises:
        OSError: If the file is missing or not a readable image.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            if verify:
                image.load()
            # Not image.getexif(): for PNG files that would decode the picture first.
            exif = Image.Image.getexif(image)
            orientation = int(exif.get(_EXIF_ORIENTATION, 1) or 1)
    except OSError:
        raise
    except Exception as error:  # Pillow's plugins raise SyntaxError, ValueError, struct.error …
        raise OSError(f'{type(error).__name__}: {error}') from error
    if orientation in (5, 6, 7, 8):
        width, height = height, width
    return width, height, orientation


def index_images(img_dir: Path) -> Tuple[Dict[str, str], Dict[str, List[str]]]:
    """Images below a folder.

    Args:
        img_dir (Path): The folder.

    Returns:
        Tuple[Dict[str, str], Dict[str, List[str]]]: Relative path without suffix → relative path
        (POSIX), and the ones among them for which several files compete.
    """
    candidates: Dict[str, List[str]] = {}
    for path in sorted(img_dir.rglob('*')):
        if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
            relative = path.relative_to(img_dir)
            candidates.setdefault(relative.with_suffix('').as_posix(), []).append(
                relative.as_posix()
            )
    chosen = {key: names[0] for key, names in candidates.items()}
    return chosen, {key: names for key, names in candidates.items() if len(names) > 1}


def read_split(path: Path) -> List[str]:
    """Image names in an ImageSets file, without the -1/0/1 column of per-class sets."""
    names = []
    for line in path.read_text(encoding='utf-8-sig').splitlines():
        tokens = line.split()
        if len(tokens) > 1 and tokens[-1] in ('-1', '0', '1'):
            tokens = tokens[:-1]
        if tokens:
            names.append(' '.join(tokens))
    return names


def unique_names(names: Sequence[str], report: ConversionReport, source: str) -> List[str]:
    """Sorted names; those that are given more than once are reported and kept once."""
    seen = set()
    for name in names:
        if name in seen:
            report.add('duplicate_image', source, f'{name!r} is listed again', 'taken once')
        seen.add(name)
    return sorted(seen)


def resolve_classes(
    classes: Optional[Sequence[str]], images: Sequence[RawImage], key: Any = None
) -> List[str]:
    """The given class names, checked, or the names found in the images, sorted.

    Raises:
        ValueError: If ``classes`` is a string, empty, or holds a name twice.
    """
    if classes is None:
        return sorted({box.name for image in images for box in image.boxes}, key=key)
    if isinstance(classes, str):
        raise ValueError(
            f'classes must be a sequence of names, got the string {classes!r}; '
            f'write ({classes!r},) for one class.'
        )
    names = list(classes)
    if not names or len(set(names)) != len(names):
        raise ValueError(
            f'classes must hold at least one name and each once, got {names}; remove repetitions '
            'or pass None to discover the names.'
        )
    return names


def check_options(min_size: float, **choices: Tuple[str, Sequence[str]]) -> None:
    """Raise ValueError for a negative ``min_size`` or an option outside its choices."""
    if not min_size >= 0:
        raise ValueError(f'min_size must be 0 or more pixels, got {min_size!r}.')
    for name, (value, allowed) in choices.items():
        if value not in allowed:
            raise ValueError(f'{name} must be one of {tuple(allowed)}, got {value!r}.')


def assemble(
    images: Sequence[RawImage],
    classes: Sequence[str],
    report: ConversionReport,
    min_size: float = 0,
    clip: bool = True,
) -> Dict[str, Any]:
    """Check the boxes and put together the COCO dictionary.

    Args:
        images (Sequence[RawImage]): Images with boxes in pixels, (x1, y1, x2, y2).
        classes (Sequence[str]): Class names; their category ids count from 1.
        report (ConversionReport): Counts and findings are added to it.
        min_size (float): Boxes with a side below this many pixels are written with ``iscrowd=1``.
        clip (bool): Clip boxes that leave the picture.

    Returns:
        Dict[str, Any]: ``images``, ``annotations``, ``categories``: sorted by file name, ids
        from 1, so that the order of the input does not matter.
    """
    category = {name: index + 1 for index, name in enumerate(classes)}
    report.classes = list(classes)
    coco: Dict[str, Any] = {
        'info': {'description': 'converted by mmdet_contrast'},
        'images': [],
        'annotations': [],
        'categories': [{'id': category[c], 'name': c, 'supercategory': ''} for c in classes],
    }
    seen: Dict[str, str] = {}
    for image in sorted(images, key=lambda i: (i.file_name, i.source)):
        if image.file_name in seen:
            report.add(
                'duplicate_image',
                image.source,
                f'{image.file_name!r} was already described by {seen[image.file_name]}',
                'left out',
            )
            continue
        seen[image.file_name] = image.source
        image_id = len(coco['images']) + 1
        coco['images'].append(
            {
                'id': image_id,
                'file_name': image.file_name,
                'width': image.width,
                'height': image.height,
            }
        )
        kept = set()
        for box in image.boxes:
            annotation = _annotation(box, image, category, report, min_size, clip)
            if annotation is None:
                continue
            signature = (annotation['category_id'], tuple(annotation['bbox']))
            if signature in kept:
                report.add('duplicate_box', image.source, _describe(box), 'kept')
            kept.add(signature)
            annotation['id'] = len(coco['annotations']) + 1
            annotation['image_id'] = image_id
            coco['annotations'].append(annotation)
            report.num_boxes += 1
            report.num_ignored += annotation['iscrowd']
            report.per_class[box.name] += 1
        if not kept:
            detail = f'{len(image.boxes)} were read' if image.boxes else 'none annotated'
            report.add('image_without_objects', image.source, detail, 'image kept')
    report.num_images = len(coco['images'])
    return coco


def _annotation(
    box: RawBox,
    image: RawImage,
    category: Dict[str, int],
    report: ConversionReport,
    min_size: float,
    clip: bool,
) -> Optional[Dict[str, Any]]:
    x1, y1, x2, y2 = box.corners
    if box.name not in category:
        report.add('unknown_class', image.source, _describe(box), 'left out')
        return None
    if not all(math.isfinite(value) for value in box.corners):
        report.add('malformed_number', image.source, _describe(box), 'left out')
        return None
    if x2 < x1 or y2 < y1:
        report.add('box_inverted', image.source, _describe(box), 'left out')
        return None
    if x2 == x1 or y2 == y1:
        report.add('box_without_area', image.source, _describe(box), 'left out')
        return None
    if min(x2, image.width) <= max(x1, 0) or min(y2, image.height) <= max(y1, 0):
        detail = f'{_describe(box)}, picture {image.width} x {image.height}'
        report.add('box_outside', image.source, detail, 'left out')
        return None
    over = max(-x1, -y1, x2 - image.width, y2 - image.height)
    if over > 0:
        kind = 'box_clipped' if over > _PIXEL else 'box_snapped'
        detail = f'{_describe(box)}, picture {image.width} x {image.height}'
        report.add(kind, image.source, detail, 'clipped to the picture' if clip else 'kept')
        if clip:
            x1, y1 = max(x1, 0.0), max(y1, 0.0)
            x2, y2 = min(x2, float(image.width)), min(y2, float(image.height))
    width, height = x2 - x1, y2 - y1
    if width < _THINNEST or height < _THINNEST:
        report.add('box_below_one_pixel', image.source, _describe(box), 'left out')
        return None
    ignore = box.ignore
    if width < min_size or height < min_size:
        report.add('below_min_size', image.source, _describe(box), 'ignored: iscrowd=1')
        ignore = True
    # Only iscrowd: CocoDataset drops an annotation with 'ignore', so its region would be trained
    # and evaluated as background.
    return {
        'id': 0,
        'image_id': 0,
        'category_id': category[box.name],
        'bbox': [_tidy(v) for v in (x1, y1, width, height)],
        'area': _tidy(width * height),
        'iscrowd': int(ignore),
        **(box.extra or {}),
    }


def _tidy(value: float) -> Union[int, float]:
    value = round(float(value), 4)
    return int(value) if value.is_integer() else value


def _describe(box: RawBox) -> str:
    return f'{box.name} at ({", ".join(f"{value:g}" for value in box.corners)})'
