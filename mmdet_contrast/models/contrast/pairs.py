"""Which boxes are compared with which."""

from typing import Callable, Dict, List, NamedTuple, Sequence, Tuple

import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import get_box_tensor
from mmengine.structures import InstanceData
from torch import Tensor


class Pairs(NamedTuple):
    """The boxes that take part; rows correspond.

    Attributes:
        query_rois (Tensor): (M, 5) position in the batch and box in the original.
        key_rois (Tensor): (M, 5) position in the batch and box in the view.
        labels (Tensor): (M,) class indices.
    """

    query_rois: Tensor
    key_rois: Tensor
    labels: Tensor


def collect_pairs(batch_data_samples: Sequence[DetDataSample], device: torch.device) -> Pairs:
    """Pair the boxes of every view with those of its original.

    A sample with the metainfo ``view=1`` is a view, of one of two kinds:

    - a full image (metainfo ``view_of``: position of its original in the batch), whose boxes are
      those of the original, row by row; those that ``view_valid`` of the original marks False
      take no part;
    - a canvas (metainfo ``canvas=True``) that holds the objects of several images. Its
      ``gt_instances`` say where each box comes from: ``source_image`` (long, position of the
      original in the batch) and ``source_box`` (long, row in that original's ``gt_instances``).
      Boxes of originals that no canvas shows take no part.

    Args:
        batch_data_samples (Sequence[DetDataSample]): The B samples of the batch, originals first.
        device (torch.device): Of the result where no sample is a view.

    Returns:
        Pairs: M pairs of boxes; M may be 0.

    Raises:
        ValueError: If a canvas does not say where its boxes come from, or names one that is not
            there.
    """
    first, second, labels = [], [], []
    for position, sample in enumerate(batch_data_samples):
        if not sample.metainfo.get('view', 0):
            continue
        view = sample.gt_instances
        boxes = get_box_tensor(view.bboxes)
        if sample.metainfo.get('canvas', False):
            query, classes = _sources(batch_data_samples, position)
        else:
            original = batch_data_samples[sample.view_of].gt_instances
            query, classes = _rois(original, sample.view_of), original.labels
            valid = original.get('view_valid', None)
            if valid is not None:
                query, boxes, classes = query[valid], boxes[valid], classes[valid]
        first.append(query)
        second.append(_with_position(boxes, position))
        labels.append(classes)
    if not labels:
        empty = torch.zeros((0, 5), device=device)
        return Pairs(empty, empty, torch.zeros(0, dtype=torch.long, device=device))
    return Pairs(torch.cat(first), torch.cat(second), torch.cat(labels))


def collect_own_pairs(batch_data_samples: Sequence[DetDataSample], device: torch.device) -> Pairs:
    """Pair every box with itself, in the same image.

    Boxes without an area in the image (``img_shape``, where it is known), or with coordinates that
    are not finite, take no part.

    Args:
        batch_data_samples (Sequence[DetDataSample]): The samples of the batch, images alone.
        device (torch.device): Of the result where there is no sample.

    Returns:
        Pairs: M pairs, whose ``query_rois`` and ``key_rois`` are the same; M may be 0.
    """
    return _own_pairs(batch_data_samples, range(len(batch_data_samples)), device)


def collect_pairs_or_own(
    batch_data_samples: Sequence[DetDataSample], device: torch.device
) -> Pairs:
    """Pair boxes with those of the view where their image has one, else with themselves.

    An image has a view where its metainfo ``has_view`` says so, as that of
    ``ContrastiveDataPreprocessor`` does, or where the ``view_of`` of a view names it. What its view
    leaves out (``view_valid``, no room on a canvas) takes no part.

    Args:
        batch_data_samples (Sequence[DetDataSample]): The B samples of the batch, originals first;
            see :func:`collect_pairs` for the views.
        device (torch.device): Of the result where there is no sample.

    Returns:
        Pairs: M pairs, those of views first, as of :func:`collect_pairs`, then those of
        :func:`collect_own_pairs` for the images without; M may be 0.
    """
    named = {s.view_of for s in batch_data_samples if 'view_of' in s.metainfo}
    alone = [
        position
        for position, sample in enumerate(batch_data_samples)
        if not (
            sample.metainfo.get('view', 0) or sample.metainfo.get('has_view', position in named)
        )
    ]
    pairs = collect_pairs(batch_data_samples, device)
    own = _own_pairs(batch_data_samples, alone, device)
    return Pairs(*(torch.cat(both) for both in zip(pairs, own)))


def _own_pairs(
    samples: Sequence[DetDataSample], positions: Sequence[int], device: torch.device
) -> Pairs:
    """Return the pairs of :func:`collect_own_pairs` for the samples at these positions."""
    rois = [torch.zeros((0, 5), device=device)]
    labels = [torch.zeros(0, dtype=torch.long, device=device)]
    for position in positions:
        own = _rois(samples[position].gt_instances, position)
        height, width = samples[position].metainfo.get('img_shape', (float('inf'),) * 2)[:2]
        limits = own.new_tensor((width, height))
        first, last = own[:, 1:3].clamp(min=0), torch.minimum(own[:, 3:], limits)
        shown = (last > first).all(dim=1) & own.isfinite().all(dim=1)
        rois.append(own[shown])
        labels.append(samples[position].gt_instances.labels[shown])
    joined = torch.cat(rois)
    return Pairs(joined, joined, torch.cat(labels))


# How pairs are found for each ``RegionContrast(key_source=...)``.
COLLECTORS: Dict[str, Callable[[Sequence[DetDataSample], torch.device], Pairs]] = {
    'view': collect_pairs,
    'image': collect_own_pairs,
    'view_or_image': collect_pairs_or_own,
}


def _with_position(boxes: Tensor, position: int) -> Tensor:
    boxes = boxes.float()
    return torch.cat((boxes.new_full((len(boxes), 1), position), boxes), dim=1)


def _rois(instances: InstanceData, position: int) -> Tensor:
    return _with_position(get_box_tensor(instances.bboxes), position)


def _sources(samples: Sequence[DetDataSample], position: int) -> Tuple[Tensor, Tensor]:
    """Return the regions (M, 5) of the originals that a canvas shows, and their labels (M,)."""
    canvas = samples[position].gt_instances
    missing = [name for name in ('source_image', 'source_box') if name not in canvas]
    if missing:
        raise ValueError(
            f'RegionContrast got a canvas (sample {position} of the batch) whose gt_instances lack '
            f'{" and ".join(missing)}: give for each box the position of its original in the batch '
            "and its row in that original's gt_instances."
        )
    originals: List[int] = [
        i for i, sample in enumerate(samples) if not sample.metainfo.get('view', 0)
    ]
    counts = [0] * len(samples)
    for i in originals:
        counts[i] = len(samples[i].gt_instances)
    rois = torch.cat([_rois(samples[i].gt_instances, i) for i in originals])
    labels = torch.cat([samples[i].gt_instances.labels for i in originals])
    image, box = canvas.source_image.long(), canvas.source_box.long()
    numbers = torch.tensor(counts, device=image.device)
    outside = (image < 0) | (image >= len(samples)) | (box < 0)
    outside |= box >= numbers[image.clamp(0, len(samples) - 1)]
    if outside.any():
        i = int(outside.nonzero()[0])
        raise ValueError(
            f'RegionContrast got a canvas (sample {position} of the batch) whose box {i} comes '
            f'from box {int(box[i])} of sample {int(image[i])}, which is not there: the originals '
            f'have {[counts[k] for k in originals]} boxes. Nothing after the making of the canvas '
            'may drop or reorder boxes.'
        )
    row = (numbers.cumsum(0) - numbers)[image] + box
    return rois[row], labels[row]
