"""Random brightness, contrast, saturation and hue."""

import cv2
import mmcv
import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS

_SCALE = dict(
    brightness=mmcv.adjust_brightness, contrast=mmcv.adjust_contrast, saturation=mmcv.adjust_color
)


@TRANSFORMS.register_module()
class ColorJitter(BaseTransform):
    """Change brightness, contrast, saturation and hue by random amounts, in random order.

    The view of SimCLR and SimSiam (arXiv 2002.05709, appendix A), on mmcv's image functions.
    MMDetection's ``Brightness``, ``Contrast`` and ``Color`` round their factor to one decimal and
    know no hue; its ``PhotoMetricDistortion`` adds to the brightness instead of scaling it.

    Required and modified key: ``img``, uint8, (H, W, 3), channels in the order BGR.

    Args:
        brightness (float): The factor is uniform in [max(0, 1 - brightness), 1 + brightness].
        contrast (float): Alike.
        saturation (float): Alike.
        hue (float): The shift is uniform in [-hue, hue], in turns of the colour wheel; at most
            0.5.
    """

    def __init__(
        self,
        brightness: float = 0.4,
        contrast: float = 0.4,
        saturation: float = 0.4,
        hue: float = 0.1,
    ) -> None:
        self.strengths = dict(
            brightness=brightness, contrast=contrast, saturation=saturation, hue=hue
        )

    def transform(self, results: dict) -> dict:
        """Jitter the image.

        Args:
            results (dict): With ``img``.

        Returns:
            dict: With the changed ``img``.

        Raises:
            TypeError: If the image is not uint8.
        """
        img = results['img']
        if img.dtype != np.uint8:
            raise TypeError(
                f'ColorJitter got an image of type {img.dtype}, expected uint8: load it with '
                'to_float32=False.'
            )
        for name in np.random.permutation(list(self.strengths)):
            strength = self.strengths[name]
            if strength == 0:
                continue
            if name == 'hue':
                img = _shift_hue(img, np.random.uniform(-strength, strength))
            else:
                factor = np.random.uniform(max(0.0, 1 - strength), 1 + strength)
                img = _SCALE[name](img, factor)
        results['img'] = img
        return results

    def __repr__(self) -> str:
        strengths = ', '.join(f'{name}={value}' for name, value in self.strengths.items())
        return f'{type(self).__name__}({strengths})'


def _shift_hue(img: np.ndarray, turns: float) -> np.ndarray:
    """Turn the hue; mmcv's ``adjust_hue`` raises for a negative shift under NumPy 2."""
    hsv = cv2.cvtColor(img, cv2.COLOR_BGR2HSV_FULL)
    # 256 steps are a turn, and uint8 wraps around where the colour wheel does
    hsv[..., 0] += np.uint8(round(turns * 256) % 256)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR_FULL)
