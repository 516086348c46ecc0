"""Blur of random strength."""

from typing import Tuple

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS


@TRANSFORMS.register_module()
class GaussianBlur(BaseTransform):
    """Blur with a Gaussian of random width (SimCLR, arXiv 2002.05709, appendix A).

    Images of 32 pixels and less are left as they are: blur would leave nothing to see in them.

    Required and modified key: ``img``.

    Args:
        sigma_range (tuple[float, float]): Bounds in pixels of the uniform standard deviation,
            ``0 < low <= high``.

    Examples:
        >>> blur = dict(
        ...     type='RandomApply', prob=0.5, transforms=[dict(type='GaussianBlur')]
        ... )
    """

    def __init__(self, sigma_range: Tuple[float, float] = (0.1, 2.0)) -> None:
        self.sigma_range = tuple(sigma_range)

    def transform(self, results: dict) -> dict:
        """Blur the image.

        Args:
            results (dict): With ``img``.

        Returns:
            dict: With the blurred ``img``.
        """
        if min(results['img'].shape[:2]) > 32:
            sigma = np.random.uniform(*self.sigma_range)
            results['img'] = cv2.GaussianBlur(results['img'], (0, 0), sigma)
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(sigma_range={self.sigma_range})'
