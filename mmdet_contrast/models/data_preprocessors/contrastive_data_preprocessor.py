"""Data preprocessor that lays out images and their views as one batch."""

from copy import deepcopy
from typing import List, Optional, Tuple

import torch
from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from torch import Tensor

from .view_canvas import ViewCanvas


@MODELS.register_module()
class ContrastiveDataPreprocessor(DetDataPreprocessor):
    """``DetDataPreprocessor`` for batches whose images bring a second view.

    N inputs of shape (2, C, H, W) become a batch of 2N: the N originals, then their N views, with
    one padding and one normalisation for all. Every data sample is told what it is through its
    metainfo: ``view`` (0 for an original, 1 for a view); for an original ``has_view`` (bool); for a
    view ``view_of``, the position of its original in the batch. The boxes of a view sample are
    those of the view. An input of shape (C, H, W) has no view; batches may mix both kinds, and a
    batch without any view (validation, test) is handled exactly as by ``DetDataPreprocessor``.

    With ``canvas`` the batch is one of N + K: instead of whole views, the objects alone are cut
    out of them and packed into K pictures of the batch's size, see :class:`ViewCanvas`. A box is
    contrasted with its copy on the canvas, at a fraction of the cost of a second batch.

    Args:
        *args: As in ``DetDataPreprocessor``.
        canvas (dict, optional): Options of :class:`ViewCanvas`; ``dict()`` takes its defaults.
            None forwards whole views.
        **kwargs: As in ``DetDataPreprocessor``.

    Examples:
        >>> model = dict(
        ...     data_preprocessor=dict(
        ...         type='ContrastiveDataPreprocessor', canvas=dict(share=0.25, context=8)
        ...     )
        ... )
    """

    def __init__(self, *args, canvas: Optional[dict] = None, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.canvas = None if canvas is None else ViewCanvas(**canvas)
        # what padding looks like, in pixels as they are read
        blank = torch.tensor([[[float(self.pad_value)]]])
        if self._enable_normalize:
            blank = blank * self.std.cpu() + self.mean.cpu()
        self._blank = blank.flip(0) if self._channel_conversion else blank

    def forward(self, data: dict, training: bool = False) -> dict:
        """Lay out, move, pad, normalise and augment a batch.

        Args:
            data (dict): ``inputs``, a sequence of N tensors (2, C, H, W) or (C, H, W), or one
                tensor (N, 2, C, H, W); ``data_samples``, N ``DetDataSample``.
            training (bool): Whether to run the batch augmentations.

        Returns:
            dict: ``inputs`` (2N, C, H', W') float, or (N + K, C, H', W') with ``canvas``, and
            ``data_samples``, as many ``DetDataSample``.

        Raises:
            ValueError: If an input is neither an image nor an image and its view.
        """
        inputs = data['inputs']
        if any(image.dim() == 4 for image in inputs):
            data_samples = [_own(sample) for sample in data['data_samples']]
            originals, views = self._split(inputs, data_samples)
            if self.canvas is None:
                extra, extra_samples = self._lay_out_views(views, data_samples)
            else:
                extra, extra_samples = self._lay_out_canvases(originals, views, data_samples)
            data = dict(data, inputs=originals + extra, data_samples=data_samples + extra_samples)
        return super().forward(data, training)

    @staticmethod
    def _split(
        inputs: List[Tensor], data_samples: List[DetDataSample]
    ) -> Tuple[List[Tensor], List[Optional[Tensor]]]:
        """Return the originals and the view of each."""
        originals, views = [], []
        for image, sample in zip(inputs, data_samples):
            sample.set_metainfo(dict(view=0, has_view=image.dim() == 4))
            if image.dim() == 4 and len(image) != 2:
                raise ValueError(
                    f'ContrastiveDataPreprocessor got an input of shape {tuple(image.shape)}; '
                    '(2, C, H, W) expected, an image and its view as PackContrastiveInputs '
                    'packs them.'
                )
            originals.append(image if image.dim() == 3 else image[0])
            views.append(None if image.dim() == 3 else image[1])
        return originals, views

    @staticmethod
    def _lay_out_views(
        views: List[Optional[Tensor]], data_samples: List[DetDataSample]
    ) -> Tuple[List[Tensor], List[DetDataSample]]:
        """Return the views and a data sample for each."""
        view_samples = []
        for index, (view, sample) in enumerate(zip(views, data_samples)):
            if view is None:
                continue
            # Not sample.clone(), which shares the tensors: batch augmentations scale boxes in
            # place, and would scale shared ones twice.
            view_sample = deepcopy(sample)
            view_sample.set_metainfo(dict(view=1, view_of=index))
            for field in ('gt_instances', 'ignored_instances'):
                if 'view_bboxes' in view_sample.get(field, ()):
                    view_sample.get(field).bboxes = view_sample.get(field).pop('view_bboxes')
                    sample.get(field).pop('view_bboxes')
            view_samples.append(view_sample)
        return [view for view in views if view is not None], view_samples

    def _lay_out_canvases(
        self,
        originals: List[Tensor],
        views: List[Optional[Tensor]],
        data_samples: List[DetDataSample],
    ) -> Tuple[List[Tensor], List[DetDataSample]]:
        """Return the canvases and a data sample for each."""
        divisor = self.pad_size_divisor
        size = tuple(
            -(-max(image.shape[axis] for image in originals) // divisor) * divisor
            for axis in (1, 2)
        )
        blank = self._blank.expand(originals[0].shape[0], 1, 1)
        canvases, samples = self.canvas(views, data_samples, size, blank)
        for sample in data_samples:
            for field in ('gt_instances', 'ignored_instances'):
                if 'view_bboxes' in sample.get(field, ()):
                    sample.get(field).pop('view_bboxes')
        return canvases, samples


def _own(sample: DetDataSample) -> DetDataSample:
    """Return a sample whose fields can be moved about; the caller may give the batch once more."""
    sample = sample.clone()
    for field in ('gt_instances', 'ignored_instances'):
        if field in sample:
            sample.set_field(sample.get(field).clone(), field)
    return sample
