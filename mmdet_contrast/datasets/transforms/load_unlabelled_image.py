"""Loading of an image, with a message that names a file that cannot be decoded."""

import cv2
from mmcv.transforms import LoadImageFromFile
from mmdet.registry import TRANSFORMS


@TRANSFORMS.register_module()
class LoadUnlabelledImage(LoadImageFromFile):
    """``LoadImageFromFile`` that names the file when it cannot be decoded, empty files included.

    An empty file ends in an error of OpenCV that does not name it.

    Arguments, required and added keys are those of mmcv's ``LoadImageFromFile``.
    """

    def transform(self, results: dict) -> dict:
        """Load the image.

        Args:
            results (dict): With ``img_path``.

        Returns:
            dict: With ``img``, ``img_shape`` and ``ori_shape``.

        Raises:
            AssertionError: If the file is empty, damaged or no image; the type, and the beginning
                of the message, are those of ``LoadImageFromFile``.
        """
        try:
            return super().transform(results)
        except (AssertionError, cv2.error) as error:
            raise AssertionError(
                f'failed to load image: {results["img_path"]}\n'
                'It is empty, damaged or not an image: replace the file or take it out of the data.'
            ) from error
