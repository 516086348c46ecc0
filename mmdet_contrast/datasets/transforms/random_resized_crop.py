"""Crops of random area and aspect ratio, resized to one size."""

import math
from typing import Sequence, Tuple, Union

import mmcv
import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS


@TRANSFORMS.register_module()
class RandomResizedCrop(BaseTransform):
    """Cut a random rectangle out of an image and resize it (Inception, arXiv 1409.4842).

    Its area is uniform in ``area_range`` times that of the image, the logarithm of its aspect
    ratio uniform in that of ``ratio_range``, its place uniform. After ten draws that do not fit
    the image the largest central rectangle of a permitted ratio is taken. This is the rule of
    torchvision's transform of that name. Images only: boxes are not moved.

    Required and modified keys: ``img``, ``img_shape``. Added key: ``crop_box``, the rectangle as
    (x1, y1, x2, y2) in pixels of the image before.

    Args:
        scale (int | tuple[int, int]): (width, height) of the result in pixels, or one number for
            both.
        area_range (tuple[float, float]): Bounds of the area, ``0 < low <= high <= 1``.
        ratio_range (tuple[float, float]): Bounds of width / height, ``0 < low <= high``.
    """

    def __init__(
        self,
        scale: Union[int, Sequence[int]],
        area_range: Tuple[float, float] = (0.2, 1.0),
        ratio_range: Tuple[float, float] = (3 / 4, 4 / 3),
    ) -> None:
        self.scale = (scale, scale) if isinstance(scale, int) else tuple(scale)
        self.area_range = tuple(area_range)
        self.ratio_range = tuple(ratio_range)

    def _draw(self, height: int, width: int) -> Tuple[int, int, int, int]:
        """Return x1, y1, width and height of a crop."""
        low, high = (math.log(ratio) for ratio in self.ratio_range)
        for _ in range(10):
            area = height * width * np.random.uniform(*self.area_range)
            ratio = math.exp(np.random.uniform(low, high))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                x = np.random.randint(width - w + 1)
                return x, np.random.randint(height - h + 1), w, h
        ratio = min(max(width / height, self.ratio_range[0]), self.ratio_range[1])
        w = max(1, min(width, round(height * ratio)))
        h = max(1, min(height, round(width / ratio)))
        return (width - w) // 2, (height - h) // 2, w, h

    def transform(self, results: dict) -> dict:
        """Crop and resize.

        Args:
            results (dict): With ``img``, (H, W, C) or (H, W).

        Returns:
            dict: With the crop as ``img``.

        Raises:
            ValueError: If boxes or masks have been loaded, which would no longer fit.
        """
        if 'gt_bboxes' in results or 'gt_masks' in results:
            raise ValueError(
                'RandomResizedCrop got boxes or masks, which it does not move: remove '
                'LoadAnnotations, or use RandomCrop.'
            )
        x, y, w, h = self._draw(*results['img'].shape[:2])
        crop = results['img'][y : y + h, x : x + w]
        results['img'] = mmcv.imresize(crop, self.scale)
        results['img_shape'] = results['img'].shape[:2]
        results['crop_box'] = (x, y, x + w, y + h)
        return results

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(scale={self.scale}, area_range={self.area_range}, '
            f'ratio_range={self.ratio_range})'
        )
