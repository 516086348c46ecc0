"""Checks that data sets, annotation files, heads and each other's lists of classes agree."""

from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

from mmcv.transforms import LoadAnnotations
from mmdet.datasets import BaseVideoDataset, CocoDataset
from mmdet.models.dense_heads import DETRHead, GARPNHead, RPNHead, SOLOHead
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.detectors.panoptic_two_stage_segmentor import TwoStagePanopticSegmentor
from mmdet.models.roi_heads.bbox_heads import BBoxHead
from mmengine.fileio import load
from torch import nn

from mmdet_contrast.datasets.coco_file import read_coco_file
from mmdet_contrast.models.selfsup import LinearClassifier
from mmdet_contrast.utils.checkpoint import class_lists
from mmdet_contrast.utils.config import LaunchError
from mmdet_contrast.utils.model import unwrap_model

from .data_config import reads_coco

# Heads with classes; those of DETR and SOLO are none of MMDetection's dense heads.
_HEADS = (BaseDenseHead, BBoxHead, DETRHead, SOLOHead)
_SHOWN = 20


def show_names(names: Sequence[str]) -> str:
    """Write a list of classes, of a long one the beginning."""
    if len(names) <= _SHOWN:
        return str(tuple(names))
    return f'({", ".join(map(repr, names[:_SHOWN]))}, … {len(names)} in all)'


def check_classes(
    where: str,
    kind: type,
    classes: Sequence[str],
    categories: Dict[int, str],
    path: str,
    cat_ids: Optional[Sequence[int]] = None,
) -> None:
    """Refuse classes that are not those of an annotation file, in its order.

    MMDetection leaves out a class that the annotation file does not name, and the classes after it
    move up by one, without a word. It numbers classes in the order of the file, whatever the order
    of ``metainfo``.

    Args:
        where (str): Where the config describes the data set, for the message.
        kind (type): Class of the data set.
        classes (Sequence[str]): What it asks for; nothing passes.
        categories (dict[int, str]): Names in the file by id, in its order.
        path (str): The file, for the message.
        cat_ids (Sequence[int], optional): Ids that the data set has found, in the order in which it
            numbers them. Defaults to those that ``CocoDataset`` finds.

    Raises:
        LaunchError: If a class is not in the file, or in another order.
    """
    if cat_ids is None:
        cat_ids = [key for key, name in categories.items() if name in classes]
    found = [categories[key] for key in cat_ids]
    if not classes or found == list(classes):
        return
    own = tuple(classes) == tuple(getattr(kind, 'METAINFO', {}).get('classes') or ())
    stock = own and kind.__module__.startswith('mmdet.')
    # of its own data sets MMDetection itself promises the order, but any file can be a CocoDataset
    if stock and kind is not CocoDataset and len(found) == len(classes):
        return
    if stock:
        raise LaunchError(
            f'{where}: the {len(classes)} classes of {kind.__name__}, {show_names(classes[:3])} …, '
            f'are asked for, as no metainfo says otherwise, but annotation file {path!r} has '
            f'{show_names(list(categories.values()))}: set metainfo=dict(classes=(...)) to these.'
        )
    raise LaunchError(
        f'{where}: metainfo has the classes {show_names(classes)}, of which annotation file '
        f'{path!r} has {show_names(found)} in this order, among '
        f'{show_names(list(categories.values()))}: give metainfo=dict(classes=...) names of the '
        'file in its order.'
    )


def check_dataset(dataset: Any, where: str) -> None:
    """Refuse a data set whose classes are not those of its annotation file.

    Args:
        dataset (Dataset): A data set; those inside of a wrapper are looked at. None passes.
        where (str): Where the config describes it, for the message.

    Raises:
        LaunchError: If a class of ``metainfo`` is not in the file, or in another order, or no image
            is left.
    """
    for part in _parts(dataset):
        metainfo = getattr(part, 'metainfo', None)
        # that of concatenated data sets may be a list
        classes = (metainfo.get('classes') or ()) if isinstance(metainfo, dict) else ()
        found, file = getattr(part, 'cat_ids', None), getattr(part, 'ann_file', None)
        # videos are of one class, whatever MMDetection lists
        videos = isinstance(part, BaseVideoDataset)
        if classes and file and found is not None and not videos:
            args = getattr(part, 'backend_args', None)
            if reads_coco(type(part)):
                names = read_coco_file(file, args).categories
            else:
                names = {x['id']: x['name'] for x in load(file, backend_args=args)['categories']}
            check_classes(where, type(part), classes, names, file, found)
        if hasattr(part, '__len__') and len(part) == 0:
            raise LaunchError(
                f'{where}: no image of {file!r} is left in the data set: check the annotation file '
                'and filter_cfg, which leaves out images without boxes.'
            )


def check_same_classes(lists: Sequence[Tuple[str, Sequence[str]]]) -> None:
    """Refuse data of one run that number classes in different ways."""
    for where, classes in lists[1:]:
        first, expected = lists[0]
        if list(classes) != list(expected):
            raise LaunchError(
                f'{first} has the classes {show_names(expected)} and {where} '
                f'{show_names(classes)}, but labels are positions in these lists: set '
                'metainfo=dict(classes=(...)) to the same classes in the same order in both.'
            )


def check_heads(model: nn.Module, classes: Sequence[str], where: str, exact: bool = False) -> None:
    """Refuse a head with fewer classes than its data set, which would learn the rest as background.

    Panoptic detectors pass: their heads know the things among the classes.

    Args:
        model (nn.Module): A detector.
        classes (Sequence[str]): Classes of its data.
        where (str): Where the config describes the data set, for the message.
        exact (bool): Whether a head with more classes is refused, too: metrics end in an
            ``IndexError`` at a label without a class.

    Raises:
        LaunchError: If ``num_classes`` of a head is not the number of classes.
    """
    if isinstance(unwrap_model(model), TwoStagePanopticSegmentor):
        return
    for name, module in model.named_modules():
        # proposals are of one class whatever the head they come from
        proposes = isinstance(module, (RPNHead, GARPNHead)) or name.endswith('rpn_head')
        number = getattr(module, 'num_classes', None)
        if not isinstance(module, _HEADS) or proposes or number is None:
            continue
        if number < len(classes) or (exact and classes and number != len(classes)):
            raise LaunchError(
                f'{name} has num_classes={number}, but {where} has the {len(classes)} classes '
                f'{show_names(classes)}: set num_classes={len(classes)} in the head, or metainfo '
                'to the classes of the head.'
            )


def check_linear(model: nn.Module, datasets: Dict[str, Any]) -> bool:
    """Refuse data that a linear evaluation would silently get wrong; other models pass.

    ``LoadAnnotations`` gives boxes in pixels of the file, and only the transforms after it change
    them with the image: MMDetection's test pipelines have it after ``Resize``, because their
    metrics read the annotation file.

    Args:
        model (nn.Module): The model, maybe in wrappers of MMEngine.
        datasets (dict): The data sets of one run, by where the config describes them.

    Returns:
        bool: Whether the model is a ``LinearClassifier``.

    Raises:
        LaunchError: If a transform comes before ``LoadAnnotations``, or the lists of classes
            differ.
    """
    if not isinstance(unwrap_model(model), LinearClassifier):
        return False
    check_same_classes(
        [(where, own) for where, dataset in datasets.items() for own in class_lists(dataset)]
    )
    for where, dataset in datasets.items():
        for part in _parts(dataset):
            early = _before_boxes(part)
            if early:
                raise LaunchError(
                    f'{where}: its pipeline has {", ".join(early)} before LoadAnnotations, so the '
                    'boxes would be those of the original image: put LoadAnnotations directly '
                    'after the image is loaded.'
                )
    return True


def _parts(dataset: Any) -> Iterator[Any]:
    """Yield a data set and those inside of it."""
    if dataset is None:
        return
    yield dataset
    # images with a label have no boxes, and what is within BoxCrops does not use its pipeline
    if not getattr(dataset, 'whole_images', False):
        for inner in (*getattr(dataset, 'datasets', ()), getattr(dataset, 'dataset', None)):
            yield from _parts(inner)


def _before_boxes(dataset: Any) -> List[str]:
    """Name the transforms that change an image before its boxes are read."""
    pipeline = getattr(dataset, 'pipeline', None)
    steps: Tuple[Any, ...] = tuple(getattr(pipeline, 'transforms', pipeline) or ())
    if getattr(dataset, 'whole_images', False):
        return []
    reads = [i for i, step in enumerate(steps) if isinstance(step, LoadAnnotations)]
    names = [type(step).__name__ for step in steps]
    return [name for name in names[: reads[-1]] if 'Load' not in name] if reads else []
