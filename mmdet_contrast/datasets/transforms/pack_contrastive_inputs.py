"""Packing of an image and its contrastive view."""

import numpy as np
import torch
from mmdet.datasets.transforms import PackDetInputs
from mmdet.registry import TRANSFORMS

from .contrastive_view import box_array


@TRANSFORMS.register_module()
class PackContrastiveInputs(PackDetInputs):
    """``PackDetInputs`` with both views of the image in ``inputs``.

    ``inputs`` gets the shape (2, C, H, W): the image, then its view. ``data_samples`` is
    MMDetection's :class:`DetDataSample`, whose ``gt_instances`` carry in addition

    - ``view_valid`` (Tensor): (M,) bool, True for boxes that may be contrasted;
    - ``view_bboxes``: the boxes in the view, only if ``transforms`` of ``ContrastiveView`` moved
      something.

    Args:
        meta_keys (Sequence[str]): As in ``PackDetInputs``.
    """

    mapping_table = dict(
        PackDetInputs.mapping_table, gt_view_valid='view_valid', gt_bboxes_view='view_bboxes'
    )

    def transform(self, results: dict) -> dict:
        """Pack the results of one image.

        Args:
            results (dict): Results of a pipeline with ``ContrastiveView``.

        Returns:
            dict: ``inputs`` (2, C, H, W) of the image's dtype, and ``data_samples``.

        Raises:
            ValueError: If a transform after ``ContrastiveView`` moved or dropped boxes.
        """
        packed = super().transform(results)
        view = PackDetInputs(meta_keys=())(dict(img=results['img_view']))['inputs']
        before, now = results['gt_view_source'], box_array(results['gt_bboxes'])
        # a transform that keeps boxes may still convert them, as to half precision
        if len(now) != len(before) or not np.allclose(now, before, 1e-3, 1e-2, equal_nan=True):
            raise ValueError(
                'a transform after ContrastiveView moved or dropped boxes, which the view shows '
                'in their old places: put ContrastiveView after it.'
            )
        packed['inputs'] = torch.stack((packed['inputs'], view))
        return packed
