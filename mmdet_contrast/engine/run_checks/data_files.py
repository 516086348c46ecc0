"""Checks of annotation files and images against what a config says about them."""

import os
import os.path as osp
import zlib
from contextlib import contextmanager
from logging import Logger
from pathlib import PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, Callable, Dict, Iterator, List, Sequence, Tuple

from mmcv.image import rescale_size
from mmdet.evaluation.metrics import CocoMetric, LVISMetric
from mmengine.logging import MMLogger
from mmengine.registry import METRICS

from mmdet_contrast.datasets.coco_file import CocoFile, read_coco_file, write_areas
from mmdet_contrast.utils.config import LaunchError, type_name

from .classes import check_classes, show_names
from .data_config import DataPart, data_parts
from .registered import find_type
from .settings import metric_configs

Size = Tuple[int, int]


def check_part(part: DataPart) -> None:
    """Refuse an annotation file that does not fit the config of its data set."""
    # its letters or parts would be the classes
    if isinstance(part.classes, str):
        raise LaunchError(
            f'{part.where}: metainfo has classes={part.classes!r}, a string and not a list: write '
            f'classes=({part.classes!r},), with the comma.'
        )
    if not part.path:
        return
    file = _file_of(part)
    check_classes(part.where, part.kind, part.classes, file.categories, part.path)
    _check_sizes(part, file)
    _check_images(part, file)


def check_boxes(parts: Sequence[DataPart], logger: Logger) -> None:
    """Refuse training data without a box to learn from; log what else is left out."""
    files = [(part, _file_of(part)) for part in parts if part.path]
    for part, file in files:
        smallest = 0 if part.cfg.get('test_mode') else _min_size(part)
        if not any(min(size) >= smallest for size in file.sizes.values()):
            raise LaunchError(
                f'{part.where}: filter_cfg=dict(min_size={smallest}) leaves no image of '
                f'{part.path!r}: set a smaller min_size.'
            )
    if len(files) < len(parts):
        return
    usable = sum(
        number
        for part, file in files
        for key, number in file.usable.items()
        if not part.classes or file.categories[key] in part.classes
    )
    if files and not usable:
        found = '; '.join(f'{part.path!r} {_count(file)}' for part, file in files)
        raise LaunchError(
            f'{files[0][0].where}: no box of the classes {show_names(files[0][0].classes)} can be '
            f'learnt from: {found}: check the annotation file and metainfo.'
        )
    for file in {file.path: file for _, file in files if file.dropped}.values():
        logger.info(f'Annotation file {file.path!r} {_count(file)}; they are not learnt from.')


def check_evaluator(evaluator: Any, parts: Sequence[DataPart], where: str, logger: Logger) -> None:
    """Refuse a metric that compares detections with the annotations of other images."""
    if not parts or not all(part.path for part in parts):
        return
    for metric in _coco_metrics(evaluator):
        if len(parts) == 1 and osp.abspath(metric['ann_file']) == osp.abspath(parts[0].path):
            continue
        file = read_coco_file(metric['ann_file'], metric.get('backend_args'))
        known = set()
        for part in parts:
            check_classes(where, part.kind, part.classes, file.categories, file.path)
            for key, name in _file_of(part).images.items():
                if not _same_image(name, file.images.get(key, '')):
                    held = f'is {file.images[key]!r}' if key in file.images else 'does not exist'
                    raise LaunchError(
                        f'{where}: image {key!r} is {name!r} in {part.path!r} of {part.where}, but '
                        f'{held} in ann_file={file.path!r}: give the evaluator the annotation file '
                        'of the data set.'
                    )
                known.add(key)
        if len(known) < len(file.images):
            logger.warning(
                f'{where}: ann_file={file.path!r} has {len(file.images) - len(known)} images that '
                f'{parts[0].where} does not have: their objects count as not found.'
            )


def complete_files(
    parts: Sequence[DataPart], evaluators: Sequence[Any], work_dir: str, logger: Logger
) -> Dict[str, str]:
    """Write copies of the annotation files that lack what the evaluation needs.

    Returns:
        dict[str, str]: The copy of each file that has one.
    """
    copies: Dict[str, str] = {}
    for path, cfg in _readers(parts, evaluators):
        args = cfg.get('backend_args')
        if path not in copies and read_coco_file(path, args).lacks_area:
            # files of several splits may have one name, and a file that was changed needs another
            stat = os.stat(path) if osp.isfile(path) else None
            mark = zlib.crc32(f'{path} {stat and (stat.st_size, stat.st_mtime_ns)}'.encode())
            stem = osp.splitext(osp.basename(path))[0]
            copies[path] = osp.join(work_dir, 'annotations', f'{stem}_{mark:08x}.json')
            write_areas(path, copies[path], args)
            logger.info(
                f'Annotation file {path!r} lacks area or iscrowd, or counts annotations from 0: '
                f'this run uses the completed copy {copies[path]!r}.'
            )
    return copies


def use_copies(
    copies: Dict[str, str], parts: Sequence[DataPart], evaluators: Sequence[Any]
) -> None:
    """Name copies in place of annotation files, and write those that this machine lacks."""
    for path, cfg in _readers(parts, evaluators):
        if path in copies:
            # where its disk is another than that of the first process
            if not osp.isfile(copies[path]):
                write_areas(path, copies[path], cfg.get('backend_args'))
            cfg.update(ann_file=copies[path], backend_args=None)


@contextmanager
def completed_data(loaders: Dict[str, Any]) -> Iterator[None]:
    """Check annotation files, and complete them as for a run, where data sets are built without.

    Args:
        loaders (dict): Configs of data loaders by their place in the config, for messages. Within
            the context they may name copies of the files.

    Yields:
        None: While the copies exist.

    Raises:
        LaunchError: If a file does not fit the config of its data set.
    """
    parts = [part for where, loader in loaders.items() for part in data_parts(loader, where)]
    for part in parts:
        check_part(part)
    with TemporaryDirectory() as folder:
        logger = MMLogger.get_current_instance()
        use_copies(complete_files(parts, [], folder, logger), parts, [])
        yield


def _readers(
    parts: Sequence[DataPart], evaluators: Sequence[Any]
) -> List[Tuple[str, Dict[str, Any]]]:
    """Return each annotation file and the config that names it."""
    metrics = [metric for evaluator in evaluators for metric in _coco_metrics(evaluator)]
    found = [(part.path, part.cfg) for part in parts if part.path]
    return [*found, *((metric['ann_file'], metric) for metric in metrics)]


def _file_of(part: DataPart) -> CocoFile:
    return read_coco_file(part.path, part.cfg.get('backend_args'))


def _min_size(part: DataPart) -> int:
    return (part.cfg.get('filter_cfg') or {}).get('min_size', 0)


def _count(file: CocoFile) -> str:
    left_out = ', '.join(f'{number} {reason}' for reason, number in file.dropped.items())
    return f'has {sum(file.usable.values())} usable boxes, and {left_out or "no other annotations"}'


def _coco_metrics(evaluator: Any) -> List[Dict[str, Any]]:
    """List the configs of metrics that read a COCO file as ``CocoMetric`` does; LVIS's does not."""
    found = []
    for metric in metric_configs(evaluator):
        kind = find_type(METRICS, metric.get('type'))
        reads_coco = isinstance(kind, type) and issubclass(kind, CocoMetric)
        if metric.get('ann_file') and reads_coco and not issubclass(kind, LVISMetric):
            found.append(metric)
    return found


def _same_image(name: str, other: str) -> bool:
    """Tell whether two names mean one file, as seen from one folder or another."""
    first, second = PurePosixPath(name).parts, PurePosixPath(other).parts
    shared = min(len(first), len(second))
    return bool(shared) and first[-shared:] == second[-shared:]


def _check_sizes(part: DataPart, file: CocoFile) -> None:
    """Refuse images of which nothing would be left after the pipeline has resized them."""
    training = not part.cfg.get('test_mode')
    smallest = _min_size(part) if training else 0
    sizes = {size for size in file.sizes.values() if min(size) >= smallest}
    lost = {
        size: left for size in sizes for left in [_resized(size, part.pipeline)] if min(left) < 1
    }
    for key, size in file.sizes.items():
        if size in lost:
            filtered = f'set filter_cfg=dict(min_size={min(size) + 1}) of the data set'
            raise LaunchError(
                f'{part.where}: image {key!r} ({file.images[key]!r}) of {part.path!r} is '
                f'{size[0]} x {size[1]} pixels and its pipeline resizes it to {lost[size][0]} x '
                f'{lost[size][1]}: take it out of the file or '
                f'{filtered if training else "give Resize a larger scale"}.'
            )


def _resized(size: Size, pipeline: Sequence[Any]) -> Size:
    """Compute the smallest size to which a pipeline may first resize an image."""
    for step in pipeline:
        name = type_name(step.get('type')) if isinstance(step, dict) else ''
        if name in _RESIZED:
            return _RESIZED[name](size, step)
        if 'Load' not in name and 'Flip' not in name:
            break
    return size


def _by_resize(size: Size, step: Dict[str, Any]) -> Size:
    scale = step.get('scale')
    if not scale or not step.get('keep_ratio'):
        return size
    return rescale_size(size, (scale, scale) if isinstance(scale, int) else tuple(scale))


def _by_one_of(size: Size, step: Dict[str, Any]) -> Size:
    return min((_by_resize(size, dict(step, scale=scale)) for scale in step['scales']), key=min)


def _by_range(size: Size, step: Dict[str, Any]) -> Size:
    scale = step['scale']
    if isinstance(scale[0], (list, tuple)):
        return _by_resize(size, dict(step, scale=[min(sides) for sides in zip(*scale)]))
    smallest = min(step.get('ratio_range') or (1.0,))
    return _by_resize(size, dict(step, scale=[int(side * smallest) for side in scale]))


def _by_mosaic(size: Size, step: Dict[str, Any]) -> Size:
    # as Mosaic computes it, which rounds down
    (width, height), (wide, high) = size, step.get('img_scale', (640, 640))
    ratio = min(high / height, wide / width)
    return int(width * ratio), int(height * ratio)


_RESIZED: Dict[str, Callable[[Size, Dict[str, Any]], Size]] = dict(
    Resize=_by_resize,
    RandomChoiceResize=_by_one_of,
    RandomResize=_by_range,
    Mosaic=_by_mosaic,
    CachedMosaic=_by_mosaic,
)


def _check_images(part: DataPart, file: CocoFile) -> None:
    """Refuse a folder that does not hold the images; a few are looked for."""
    prefix = part.cfg.get('data_prefix') or {}
    if not isinstance(prefix, dict) or 'img' not in prefix:
        raise LaunchError(
            f'{part.where}: data_prefix={prefix!r} does not say where the images are: set '
            'data_prefix=dict(img=...) to their folder, relative to data_root.'
        )
    names = list(file.images.values())
    paths = part.image_paths([names[0], names[len(names) // 2], names[-1]])
    if paths and not any(map(osp.isfile, paths)):
        raise LaunchError(
            f'{part.where}: image {paths[0]!r} does not exist, nor do others of {part.path!r}: set '
            f'data_prefix=dict(img=...), now {prefix["img"]!r}, to the folder in which '
            f'{names[0]!r} lies.'
        )
