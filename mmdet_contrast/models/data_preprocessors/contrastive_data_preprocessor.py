"""Data preprocessor that lays out images and their views as one batch."""

from typing import List, Sequence

import torch
import torch.nn.functional as F
from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes, get_box_tensor
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_contrast.compat import reverses_channels

GRID = 2
"""Views along each side of a picture, each at ``1 / GRID`` of its size."""


@MODELS.register_module()
class ContrastiveDataPreprocessor(DetDataPreprocessor):
    """``DetDataPreprocessor`` for batches whose images bring a second view.

    N inputs of shape (2, C, H, W) become a batch of N + ceil(N / 4) pictures: the N originals, then
    their views at half size, four to a picture, with one padding and one normalisation for all. A
    view whose objects are enlarged two to three times loses no detail by that, and the batch grows
    by a quarter instead of twice. A batch of inputs of shape (C, H, W) has no views (validation,
    test) and is handled by ``DetDataPreprocessor``.

    The metainfo of a data sample holds ``view`` (0 for an original, 1 for a picture of views); and
    for an original ``view_moved`` (bool: a flip, say, moved the boxes in the view) and
    ``view_place``: position of the picture in the batch, and left and upper edge of the view as
    shares of the picture's width and height. The boxes of a picture are those of its views, in the
    order of the originals.

    Arguments are those of ``DetDataPreprocessor``.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        # what padding looks like, in pixels as they are read
        blank = torch.tensor([[[float(self.pad_value)]]])
        if hasattr(self, 'mean'):
            blank = blank * self.std.cpu() + self.mean.cpu()
        self._blank = blank.flip(0) if reverses_channels(self) else blank

    def forward(self, data: dict, training: bool = False) -> dict:
        """Lay out, move, pad, normalise and augment a batch.

        Args:
            data (dict): ``inputs``, a sequence of N tensors, all (2, C, H, W) or all (C, H, W), or
                one tensor of them; ``data_samples``, N ``DetDataSample``.
            training (bool): Whether to run the batch augmentations.

        Returns:
            dict: ``inputs`` (N + K, C, H', W') float and ``data_samples``, as many
            ``DetDataSample``; K is a quarter of the number of views, rounded up.
        """
        if data['inputs'][0].dim() == 4:
            data = self.cast_data(data)
            originals, views = zip(*data['inputs'])
            samples = [_own(sample) for sample in data['data_samples']]
            pictures = self._tile(views)
            samples += _describe(samples, pictures)
            data = dict(data, inputs=[*originals, *pictures], data_samples=samples)
        return super().forward(data, training)

    def pad_gt_masks(self, batch_data_samples: Sequence[DetDataSample]) -> None:
        """Pad the masks of the originals; pictures of views have none."""
        super().pad_gt_masks(_originals(batch_data_samples))

    def pad_gt_sem_seg(self, batch_data_samples: Sequence[DetDataSample]) -> None:
        """Pad the semantic maps of the originals; pictures of views have none."""
        super().pad_gt_sem_seg(_originals(batch_data_samples))

    def _tile(self, views: Sequence[Tensor]) -> Tensor:
        """Return (K, C, H, W) pictures of the views, as large as the batch."""
        # a multiple of the divisor that is also one of the grid
        divisor = self.pad_size_divisor * (GRID if self.pad_size_divisor % GRID else 1)
        height, width = (
            -(-max(view.shape[axis] for view in views) // divisor) * divisor for axis in (1, 2)
        )
        number = -(-len(views) // GRID**2)
        blank = self._blank.to(views[0].device, non_blocking=True).expand(len(views[0]), 1, 1)
        whole = blank.repeat(number * GRID**2, 1, height, width)
        for place, view in zip(whole, views):
            place[:, : view.shape[1], : view.shape[2]] = view
        tiles = F.avg_pool2d(whole, GRID).unflatten(0, (number, GRID, GRID))
        return tiles.permute(0, 3, 1, 4, 2, 5).reshape(number, -1, height, width)


def _describe(originals: Sequence[DetDataSample], pictures: Tensor) -> List[DetDataSample]:
    """Note in each original where its view is, and return a data sample for each picture."""
    height, width = pictures.shape[2:]
    boxes: List[List[Tensor]] = [[] for _ in pictures]
    labels: List[List[Tensor]] = [[] for _ in pictures]
    for i, sample in enumerate(originals):
        picture, cell = divmod(i, GRID**2)
        row, column = divmod(cell, GRID)
        instances = sample.gt_instances
        moved = 'view_bboxes' in instances
        place = (len(originals) + picture, column / GRID, row / GRID)
        sample.set_metainfo(dict(view=0, view_moved=moved, view_place=place))
        own = get_box_tensor(instances.pop('view_bboxes') if moved else instances.bboxes)
        corner = torch.tensor([column * width / GRID, row * height / GRID] * 2)
        # copied without a wait for the GPU
        boxes[picture].append(own / GRID + corner.to(own, non_blocking=True))
        labels[picture].append(instances.labels)
        if 'view_bboxes' in sample.get('ignored_instances', ()):
            sample.ignored_instances.pop('view_bboxes')
    out = []
    for own, classes in zip(boxes, labels):
        meta = dict(view=1, img_shape=(height, width), ori_shape=(height, width))
        sample = DetDataSample(metainfo=dict(meta, scale_factor=(1.0, 1.0)))
        sample.gt_instances = InstanceData(
            bboxes=HorizontalBoxes(torch.cat(own)), labels=torch.cat(classes)
        )
        sample.ignored_instances = sample.gt_instances[:0]
        out.append(sample)
    return out


def _originals(samples: Sequence[DetDataSample]) -> List[DetDataSample]:
    return [sample for sample in samples if not sample.metainfo.get('view', 0)]


def _own(sample: DetDataSample) -> DetDataSample:
    """Return a sample whose fields can be moved about; the caller may give the batch once more."""
    sample = sample.clone()
    for field in ('gt_instances', 'ignored_instances'):
        if field in sample:
            sample.set_field(sample.get(field).clone(), field)
    return sample
