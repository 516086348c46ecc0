"""Packing of an image and its contrastive view."""

import numpy as np
import torch
from mmdet.datasets.transforms import PackDetInputs
from mmdet.registry import TRANSFORMS
from mmdet.structures.bbox import BaseBoxes


@TRANSFORMS.register_module()
class PackContrastiveInputs(PackDetInputs):
    """``PackDetInputs`` with both views of the image in ``inputs``.

    ``inputs`` gets the shape (2, C, H, W): the image, then its view; or (C, H, W) where
    ``ContrastiveView(prob=...)`` made none. ``data_samples`` is MMDetection's
    :class:`DetDataSample` with the metainfo ``view=0``, whose ``gt_instances`` carry in addition,
    where there is a view,

    - ``view_valid`` (Tensor): (M,) bool, True for boxes that may be contrasted;
    - ``view_bboxes``: the boxes in the view, only where the view moved them.

    Args:
        meta_keys (Sequence[str]): As in ``PackDetInputs``.
    """

    def transform(self, results: dict) -> dict:
        """Pack the results of one image.

        Args:
            results (dict): Results of the pipeline with ``img``, ``img_view`` and
                ``gt_view_valid``.

        Returns:
            dict: ``inputs`` (2, C, H, W) or (C, H, W) of the image's dtype, and
            ``data_samples``.

        Raises:
            KeyError: If the results hold no view.
            ValueError: If a later transform changed the size of the image, or its boxes, but not
                the view.
        """
        if 'img_view' not in results:
            raise KeyError(
                "PackContrastiveInputs found no 'img_view' in the results; put ContrastiveView "
                'before it, or use PackDetInputs.'
            )
        if results['img_view'] is None:
            packed = super().transform(results)
            packed['data_samples'].set_metainfo(dict(view=0))
            return packed
        if results['img_view'].shape != results['img'].shape:
            raise ValueError(
                f'PackContrastiveInputs got an image of shape {results["img"].shape} and a view '
                f'of shape {results["img_view"].shape}; put ContrastiveView after every '
                'transform that changes the size of the image.'
            )
        valid = np.asarray(results['gt_view_valid'], dtype=bool)
        if len(valid) != len(results['gt_bboxes']):
            raise ValueError(
                f'PackContrastiveInputs got {len(results["gt_bboxes"])} boxes but a view of '
                f'{len(valid)}; put ContrastiveView after every transform that drops boxes.'
            )
        self._check_places(results)
        packed = super().transform(results)
        view = super().transform(dict(img=results['img_view']))['inputs']
        packed['inputs'] = torch.stack((packed['inputs'], view))

        flags = results.get('gt_ignore_flags')
        ignored = np.zeros(len(valid), dtype=bool) if flags is None else np.asarray(flags) == 1
        sample = packed['data_samples']
        sample.set_metainfo(dict(view=0))
        sample.gt_instances.view_valid = torch.from_numpy(valid[~ignored])
        if 'gt_bboxes_view' in results:
            for instances, chosen in (
                (sample.gt_instances, ~ignored),
                (sample.ignored_instances, ignored),
            ):
                if 'bboxes' in instances:
                    moved = results['gt_bboxes_view'][np.flatnonzero(chosen)]
                    instances.view_bboxes = (
                        moved if isinstance(moved, BaseBoxes) else torch.tensor(moved)
                    )
        return packed

    def _check_places(self, results: dict) -> None:
        """Refuse boxes that are not where they were when the view was made."""
        before = results.get('gt_view_source')
        if before is None:
            return
        boxes = results['gt_bboxes']
        now = boxes.numpy() if isinstance(boxes, BaseBoxes) else np.asarray(boxes)
        # a transform that keeps boxes may still convert them, as to half precision
        if not np.allclose(now.reshape(-1, 4), before, rtol=1e-3, atol=1e-2, equal_nan=True):
            raise ValueError(
                'PackContrastiveInputs got boxes that a transform after ContrastiveView moved, '
                'with the image but not with its view: put ContrastiveView after every transform '
                'that moves boxes.'
            )
