"""Where the picture lies within what a detector is given."""

from typing import Tuple

from mmdet.structures import DetDataSample


def picture_extent(sample: DetDataSample) -> Tuple[int, int]:
    """Find the part of a detector's input that is picture; right of it and below it is padding.

    ``img_shape`` alone does not say it: ``Pad`` in a pipeline sets it to the padded size. So the
    extent is that of the original image times ``scale_factor``, or ``img_shape`` where that is
    smaller (a crop after resizing) or one of the two is unknown. A picture that was padded to the
    left or above, or resized twice, is not found.

    Args:
        sample (DetDataSample): Its metainfo has ``img_shape``, and ``ori_shape``, ``scale_factor``
            and ``batch_input_shape`` where the pipeline and the data preprocessor give them.

    Returns:
        tuple[int, int]: Height and width in pixels of the input, each at least 1.

    Example:
        >>> height, width = picture_extent(sample)
        >>> picture = inputs[0, :, :height, :width]
    """
    meta = sample.metainfo
    extent = [int(side) for side in meta['img_shape'][:2]]
    bounds = [meta['batch_input_shape'][:2]] if 'batch_input_shape' in meta else []
    if 'ori_shape' in meta and 'scale_factor' in meta:
        # shapes are heights first, scale_factor is the width's first
        scales = meta['scale_factor'][1::-1]
        bounds.append([round(side * scale) for side, scale in zip(meta['ori_shape'], scales)])
    for bound in bounds:
        extent = [min(side, int(other)) for side, other in zip(extent, bound)]
    height, width = (max(side, 1) for side in extent)
    return height, width
