"""Where the picture lies within what a detector is given."""

from typing import List, Sequence, Tuple

from mmdet.datasets.transforms import PackDetInputs
from mmdet.structures import DetDataSample

from .config import type_name

# Pad writes it into the results, and nothing else does.
_OF_PAD = 'pad_size_divisor'


def tell_padding(pipeline: Sequence[dict]) -> List[dict]:
    """Let the samples of a pipeline say whether ``Pad`` has padded them.

    Args:
        pipeline (Sequence[dict]): Configs of the steps; they are not changed.

    Returns:
        list[dict]: The steps, with what :func:`picture_extent` needs among the ``meta_keys`` of
        ``PackDetInputs``.
    """
    steps = [dict(step) for step in pipeline]
    for step in steps:
        if type_name(step.get('type')) == 'PackDetInputs':
            keys = step.get('meta_keys') or PackDetInputs().meta_keys
            step['meta_keys'] = tuple(
                dict.fromkeys((*keys, 'ori_shape', 'scale_factor', 'flip', _OF_PAD))
            )
    return steps


def picture_extent(sample: DetDataSample) -> Tuple[int, int]:
    """Find the part of a detector's input that is picture; right of it and below it is padding.

    ``img_shape`` alone does not say it: ``Pad`` in a pipeline sets it to the padded size. Where the
    metainfo says that there was a ``Pad`` (see :func:`tell_padding`), and no flip, the extent is
    that of the original image times ``scale_factor``, or ``img_shape`` where that is smaller; else
    it is ``img_shape``. A picture that was resized twice before ``Pad`` is not found.

    Args:
        sample (DetDataSample): Its metainfo has ``img_shape``, and ``batch_input_shape`` where
            the data preprocessor gives it.

    Returns:
        tuple[int, int]: Height and width in pixels of the input, each at least 1.

    Example:
        >>> pipeline = Compose(tell_padding(cfg.test_dataloader.dataset.pipeline))
        >>> data = pipeline(dict(img_path='a.jpg', img_id=0))
        >>> height, width = picture_extent(data['data_samples'])
    """
    meta = sample.metainfo
    extent = [int(side) for side in meta['img_shape'][:2]]
    bounds = [meta['batch_input_shape'][:2]] if 'batch_input_shape' in meta else []
    padded = _OF_PAD in meta and not meta.get('flip', False)
    if padded and 'ori_shape' in meta and 'scale_factor' in meta:
        # shapes are heights first, scale_factor is the width's first
        scales = meta['scale_factor'][1::-1]
        bounds.append([round(side * scale) for side, scale in zip(meta['ori_shape'], scales)])
    for bound in bounds:
        extent = [min(side, int(other)) for side, other in zip(extent, bound)]
    height, width = (max(side, 1) for side in extent)
    return height, width
