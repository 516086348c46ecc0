"""What a linear evaluation is refused for."""

from typing import Any, Dict

from mmcv.transforms import LoadAnnotations
from torch import nn

from .checkpoint_checks import unwrap_model
from .launch_checks import LaunchError, class_lists

__all__ = ['check_linear']


def check_linear(model: nn.Module, datasets: Dict[str, Any]) -> bool:
    """Refuse data that a linear evaluation would silently get wrong; other models pass.

    ``LoadAnnotations`` gives boxes in pixels of the file, and only the transforms after it change
    them with the image: MMDetection's test pipelines have it after ``Resize``, because their
    metrics read the annotation file. Labels are positions in a data set's own list of classes.

    Args:
        model (nn.Module): The model, maybe in wrappers of MMEngine.
        datasets (dict): The data sets of one run, by where the config describes them; None where
            there is none.

    Returns:
        bool: Whether the model is a ``LinearClassifier``.

    Raises:
        LaunchError: If a transform comes before ``LoadAnnotations``, or the lists of classes
            differ.
    """
    from mmdet_contrast.models.selfsup import LinearClassifier

    if not isinstance(unwrap_model(model), LinearClassifier):
        return False
    classes = {}
    for where, dataset in datasets.items():
        if dataset is not None:
            _check_order(dataset, where)
            lists = class_lists(dataset)
            for number, own in enumerate(lists):
                name = where if len(lists) == 1 else f'{where}.dataset.datasets[{number}]'
                classes[name] = own
    if len(set(map(tuple, classes.values()))) > 1:
        lists = ' and '.join(f'{where} has the classes {own}' for where, own in classes.items())
        raise LaunchError(
            f'{lists}, but labels are positions in these lists, which have to be the same in the '
            'same order: set metainfo=dict(classes=(...)) in all data sets.'
        )
    return True


def _check_order(dataset: Any, where: str) -> None:
    """Refuse boxes that are read after the image has been changed."""
    # images with a label have no boxes, and what is within BoxCrops does not use its pipeline
    if getattr(dataset, 'whole_images', False):
        return
    for inner in [*getattr(dataset, 'datasets', ()), getattr(dataset, 'dataset', None)]:
        if inner is not None:
            _check_order(inner, where)
    pipeline = getattr(dataset, 'pipeline', None)
    steps = getattr(pipeline, 'transforms', pipeline)
    if not isinstance(steps, (list, tuple)):
        return
    reads = [i for i, step in enumerate(steps) if isinstance(step, LoadAnnotations)]
    names = [type(step).__name__ for step in steps]
    early = [name for name in names[: reads[-1]] if 'Load' not in name] if reads else []
    if early:
        raise LaunchError(
            f'{where}: its pipeline has {", ".join(early)} before {names[reads[-1]]}, which '
            'can leave the boxes in pixels of the original image while LinearClassifier pools them '
            'from the features of the changed one: put LoadAnnotations directly after the image is '
            'loaded.'
        )
