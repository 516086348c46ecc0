"""Data sets of boxes or images with a class, read as at test time."""

from copy import deepcopy
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
from mmdet.registry import DATASETS
from torch.utils.data import ConcatDataset, Dataset, Subset

from mmdet_contrast.utils.config import LaunchError, dataset_chain, type_name
from mmdet_contrast.utils.picture_extent import tell_padding

_STOCK = 'LoadAnnotations'
_META_KEYS = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')


class LabelledSamples(NamedTuple):
    """Samples to embed.

    Attributes:
        dataset (Dataset): Its items are what ``PackDetInputs`` gives.
        classes (tuple[str]): Names of the classes.
        name (str): What to call them in messages.
    """

    dataset: Dataset
    classes: Tuple[str, ...]
    name: str


def labelled_samples(
    cfg: Dict[str, Any],
    pipeline: Optional[Sequence[dict]] = None,
    max_samples: Optional[int] = None,
    name: str = 'data set',
    default_pipeline: Optional[Sequence[dict]] = None,
) -> LabelledSamples:
    """Build a data set whose samples are read without augmentation and with their annotations.

    Wrappers that repeat, balance or mix images are taken off, concatenated sets are joined, and no
    box is filtered out. Boxes are loaded right after the image: MMDetection's test pipelines load
    them after ``Resize``, which leaves them in pixels of the original image.

    Args:
        cfg (dict): Config of a detection data set, of a ``LabelledImageFolder`` or of
            ``BoxCrops``.
        pipeline (Sequence[dict], optional): Test pipeline. Defaults to that of ``cfg``.
        max_samples (int, optional): At most so many samples, spread evenly. Defaults to all.
        name (str): What to call the data set in messages.
        default_pipeline (Sequence[dict], optional): Test pipeline of those within ``cfg`` that
            have none.

    Returns:
        LabelledSamples: The samples.

    Raises:
        ValueError: If there is no test pipeline, or concatenated sets differ in their classes.
    """
    parts = []
    for part in _parts(cfg):
        steps = pipeline if pipeline is not None else part.get('pipeline') or default_pipeline
        part['pipeline'] = arrange_pipeline(steps or (), _is_whole(part))
        # no sample may be drawn at random in place of another; XML data do not test with a filter
        for cfg_of in (part, dataset_chain(part)[-1]):
            cfg_of['test_mode'] = True
            cfg_of.pop('filter_cfg', None)
        parts.append(DATASETS.build(part))
        parts[-1].full_init()
    classes = {tuple(part.metainfo.get('classes') or ()) for part in parts}
    if len(classes) > 1:
        raise ValueError(
            f'the {name} joins sets of the classes {" and ".join(map(str, classes))}: set one '
            'metainfo=dict(classes=...) for all.'
        )
    joined = parts[0] if len(parts) == 1 else ConcatDataset(parts)
    total = len(joined)
    if max_samples is not None and total > max_samples:
        chosen = np.linspace(0, total - 1, max_samples).round().astype(int).tolist()
        joined = Subset(joined, chosen)
    return LabelledSamples(joined, classes.pop(), name)


def bank_and_queries(
    bank: Dict[str, Any],
    queries: Dict[str, Any],
    augmented: bool,
    max_samples: Optional[int],
    names: Sequence[str],
) -> Tuple[LabelledSamples, LabelledSamples]:
    """Build the data sets of a classification by nearest neighbours.

    Args:
        bank (dict): Config of the data set with known classes.
        queries (dict): Config of the one to classify, with a test pipeline.
        augmented (bool): Whether the pipeline of ``bank`` augments, so that that of the queries
            takes its place.
        max_samples (int, optional): See :func:`labelled_samples`, of each.
        names (Sequence[str]): What to call the two in messages.

    Returns:
        tuple[LabelledSamples, LabelledSamples]: Bank and queries.

    Raises:
        ValueError: If there is no test pipeline, or the two differ in their classes.
    """
    # also within wrappers
    own = _parts(queries)[0].get('pipeline')
    asked = labelled_samples(queries, None, max_samples, names[1])
    known = labelled_samples(
        bank, own if augmented else None, max_samples, names[0], default_pipeline=own
    )
    if known.classes != asked.classes:
        raise LaunchError(
            f'the {known.name} has the classes {list(known.classes)} and the {asked.name} '
            f'{list(asked.classes)}: set one metainfo=dict(classes=...) for both.'
        )
    return known, asked


def arrange_pipeline(pipeline: Sequence[dict], whole_images: bool = False) -> List[dict]:
    """Load boxes where they are resized with the image, and keep labels of images.

    MMDetection's ``LoadAnnotations`` is replaced by one of boxes alone, other loaders of
    annotations are moved.

    Args:
        pipeline (Sequence[dict]): Test pipeline; it is not changed.
        whole_images (bool): Whether samples are images with a label, which have no annotations.

    Returns:
        list[dict]: The pipeline.

    Raises:
        ValueError: If the pipeline does not end in ``PackDetInputs``, as one with views.
    """
    steps = [deepcopy(dict(step)) for step in pipeline]
    names = [type_name(step.get('type')) for step in steps]
    if 'PackDetInputs' not in names[-1:]:
        raise ValueError(
            f'the pipeline {names} does not end in PackDetInputs: give the data set the '
            'test_pipeline of a detection config.'
        )
    steps[-1]['meta_keys'] = tuple(
        dict.fromkeys((*steps[-1].get('meta_keys', ()), *_META_KEYS, 'gt_label'))
    )
    loads = ['Load' in name and 'Annotations' in name for name in names]
    own = [step for step, name, is_one in zip(steps, names, loads) if is_one and name != _STOCK]
    others = [(step, name) for step, name, is_one in zip(steps, names, loads) if not is_one]
    # a loader of images that is not called so comes first
    last = max((i for i, (_, name) in enumerate(others) if 'Load' in name), default=0)
    arranged = [step for step, _ in others]
    if not whole_images:
        if _STOCK in names or not own:
            own = [dict(type=f'mmdet.{_STOCK}', with_bbox=True), *own]
        arranged[last + 1 : last + 1] = own
    return tell_padding(arranged)


def _parts(cfg: Dict[str, Any]) -> List[dict]:
    """Take wrappers off; return the configs of the sets within."""
    if 'datasets' in cfg:
        return [part for child in cfg['datasets'] for part in _parts(child)]
    if 'dataset' in cfg and not _is_whole(cfg):
        return _parts(cfg['dataset'])
    return [deepcopy(dict(cfg))]


def _is_whole(cfg: Dict[str, Any]) -> bool:
    kind = cfg.get('type')
    kind = DATASETS.get(kind) if isinstance(kind, str) else kind
    return bool(getattr(kind, 'whole_images', False))
