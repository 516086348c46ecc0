"""Data preprocessor that lays out images and their views as one batch."""

from copy import deepcopy
from typing import List, Tuple

from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from torch import Tensor


@MODELS.register_module()
class ContrastiveDataPreprocessor(DetDataPreprocessor):
    """``DetDataPreprocessor`` for batches whose images bring a second view.

    N inputs of shape (2, C, H, W) become a batch of 2N: the N originals, then their N views, with
    one padding and one normalisation for all. Every data sample is told what it is through its
    metainfo: ``view`` (0 for an original, 1 for a view) and, for a view, ``view_of``, the
    position of its original in the batch. The boxes of a view sample are those of the view. An
    input of shape (C, H, W) has no view; batches may mix both kinds, and a batch without any view
    (validation, test) is handled exactly as by ``DetDataPreprocessor``.

    Args:
        *args: As in ``DetDataPreprocessor``.
        **kwargs: As in ``DetDataPreprocessor``.
    """

    def forward(self, data: dict, training: bool = False) -> dict:
        """Lay out, move, pad, normalise and augment a batch.

        Args:
            data (dict): ``inputs``, a sequence of N tensors (2, C, H, W) or (C, H, W), or one
                tensor (N, 2, C, H, W); ``data_samples``, N ``DetDataSample``.
            training (bool): Whether to run the batch augmentations.

        Returns:
            dict: ``inputs`` (2N, C, H', W') float and ``data_samples``, 2N ``DetDataSample``.
        """
        inputs = data['inputs']
        if any(image.dim() == 4 for image in inputs):
            inputs, data_samples = self._split_views(list(inputs), list(data['data_samples']))
            data = dict(data, inputs=inputs, data_samples=data_samples)
        return super().forward(data, training)

    @staticmethod
    def _split_views(
        inputs: List[Tensor], data_samples: List[DetDataSample]
    ) -> Tuple[List[Tensor], List[DetDataSample]]:
        """Return the originals followed by the views, with a data sample for each."""
        originals, views, view_samples = [], [], []
        for index, (image, sample) in enumerate(zip(inputs, data_samples)):
            sample.set_metainfo(dict(view=0))
            if image.dim() == 3:
                originals.append(image)
                continue
            if len(image) != 2:
                raise ValueError(
                    f'ContrastiveDataPreprocessor got an input of shape {tuple(image.shape)}; '
                    '(2, C, H, W) expected, an image and its view as PackContrastiveInputs '
                    'packs them.'
                )
            originals.append(image[0])
            views.append(image[1])
            # Not sample.clone(), which shares the tensors: batch augmentations scale boxes in
            # place, and would scale shared ones twice.
            view_sample = deepcopy(sample)
            view_sample.set_metainfo(dict(view=1, view_of=index))
            for field in ('gt_instances', 'ignored_instances'):
                if 'view_bboxes' in view_sample.get(field, ()):
                    view_sample.get(field).bboxes = view_sample.get(field).pop('view_bboxes')
                    sample.get(field).pop('view_bboxes')
            view_samples.append(view_sample)
        return originals + views, data_samples + view_samples
