"""What a heat map explains: scores of a dense head, before post-processing."""

from copy import deepcopy
from typing import Any, List, NamedTuple, Optional, Sequence, Tuple

import torch
from mmdet.models.dense_heads import DETRHead
from mmdet.models.detectors import DetectionTransformer
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox_overlaps, get_box_tensor
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor, nn

# Two predictions with boxes this alike are told apart by their scores.
_SAME_BOX = 1e-3


class CamTarget(NamedTuple):
    """The score that a heat map explains: a sum of logits of one class.

    Attributes:
        label (int): Index of the class.
        priors (Tensor): (K,) long, the predictions whose logits are summed: places in the
            flattened maps of :func:`class_logits`.
        text (str): What it is, for titles and messages.
        boxes (Tensor): (K', 4) the detected boxes it explains, in pixels of the image; none where
            it is not a detection.
    """

    label: int
    priors: Tensor
    text: str
    boxes: Tensor

    def score(self, logits: Tensor) -> Tensor:
        """Compute the score of each image.

        Args:
            logits (Tensor): (N, P, C) of :func:`class_logits`.

        Returns:
            Tensor: (N,).
        """
        return logits[:, self.priors, self.label].sum(1)


def head_outputs(detector: nn.Module, inputs: Tensor) -> Tuple[Any, ...]:
    """Run backbone, neck and dense head.

    Args:
        detector (nn.Module): A single-stage detector with a dense head, e.g. RetinaNet, FCOS, GFL
            or YOLOv8.
        inputs (Tensor): (N, 3, H, W) normalised images.

    Returns:
        tuple: The head's raw maps by level: class logits (N, A * C, h, w), boxes, and what more
        the head has.

    Raises:
        ValueError: If the detector has no such head.
    """
    head = getattr(detector, 'bbox_head', None)
    outputs = None
    # heads of transformers have the same attributes, but take queries instead of feature maps
    queries = isinstance(detector, DetectionTransformer) or isinstance(head, DETRHead)
    named = hasattr(head, 'cls_out_channels') and hasattr(head, 'predict_by_feat')
    if named and not queries:
        outputs = head(detector.extract_feat(inputs))
    if not _is_dense(outputs, getattr(head, 'cls_out_channels', 1)):
        raise ValueError(
            f'{type(detector).__name__} has no dense head that gives class logits by level '
            '(RetinaNet, FCOS, ATSS, GFL, YOLOv8 …), so there is no score to explain: use the '
            "method 'eigen-cam', which needs none."
        )
    return tuple(outputs)


def class_logits(head: nn.Module, outputs: Sequence[Any]) -> Tensor:
    """Flatten the class logits of a dense head in MMDetection's order of priors.

    Args:
        head (nn.Module): The head.
        outputs (Sequence): As :func:`head_outputs` returns them.

    Returns:
        Tensor: (N, P, C) logits, before sigmoid or softmax; P counts levels, rows, columns and
        the priors of a place, in this order.
    """
    width = head.cls_out_channels
    flat = [level.permute(0, 2, 3, 1).reshape(len(level), -1, width) for level in outputs[0]]
    return torch.cat(flat, dim=1)


@torch.no_grad()
def class_scores(head: nn.Module, outputs: Sequence[Any]) -> Tensor:
    """Compute the scores that post-processing ranks the predictions of one image by.

    Args:
        head (nn.Module): A dense head.
        outputs (Sequence): As :func:`head_outputs` returns them, of one image.

    Returns:
        Tensor: (P, C) sigmoid or softmax of the logits, times centreness or objectness where the
        head has it.
    """
    logits = class_logits(head, outputs)[0].float()
    scores = logits.sigmoid() if getattr(head, 'use_sigmoid_cls', True) else logits.softmax(-1)
    if len(outputs) > 2 and _is_factor(outputs[2], outputs[0], head.cls_out_channels):
        factors = [level[0].permute(1, 2, 0).flatten() for level in outputs[2]]
        scores = scores * torch.cat(factors).float().sigmoid()[:, None]
    return scores


@torch.no_grad()
def decode_boxes(head: nn.Module, outputs: Sequence[Any], sample: DetDataSample) -> Tensor:
    """Decode the box of every prior with the head's own post-processing.

    ``predict_by_feat`` drops and sorts predictions by their scores. So it is given scores that
    fall from the first prior to the last and are all above its threshold, with the head's own
    boxes: then it returns every box, in the order of the priors, whatever the head's way to
    decode them is.

    Args:
        head (nn.Module): A dense head.
        outputs (Sequence): As :func:`head_outputs` returns them, of one image.
        sample (DetDataSample): Says the sizes of the image.

    Returns:
        Tensor: (P, 4) boxes in pixels of the original image.

    Raises:
        ValueError: If the head returns another number of boxes.
    """
    width = head.cls_out_channels
    priors = [level[0].numel() // width for level in outputs[0]]
    total = sum(priors)
    # float64 before the logit: neighbours stay apart in float32 up to millions of priors
    order = torch.linspace(0.75, 0.25, total, dtype=torch.float64).logit()
    fake = []
    for level, values in zip(outputs[0], order.split(priors)):
        rows, columns = level.shape[-2:]
        logits = level.new_full((rows, columns, priors[len(fake)] // (rows * columns), width), -50)
        # A softmax head has its background last: 0 there makes it a sigmoid of the first class.
        logits[..., -1] = 0 if not getattr(head, 'use_sigmoid_cls', True) else -50
        logits[..., 0] = values.to(logits).reshape(logits.shape[:-1])
        fake.append(logits.flatten(2).permute(2, 0, 1)[None])
    rest = list(outputs[1:])
    if len(rest) > 1 and _is_factor(rest[1], outputs[0], width):
        # Centreness or objectness multiplies the score; sigmoid(50) is 1.
        rest[1] = [torch.full_like(level, 50) for level in rest[1]]
    cfg = ConfigDict(deepcopy(head.test_cfg))
    cfg.update(score_thr=0.1, nms_pre=total, max_per_img=total, min_bbox_size=-1)
    found = head.predict_by_feat(
        fake, *rest, batch_img_metas=[sample.metainfo], cfg=cfg, rescale=True, with_nms=False
    )[0]
    boxes = get_box_tensor(found.bboxes)
    if len(boxes) != total:
        raise ValueError(
            f'{type(head).__name__} decodes {len(boxes)} boxes of {total} predictions, so that its '
            'detections cannot be traced back: explain a class with reduce="max" instead.'
        )
    return boxes


def trace_detections(
    boxes: Tensor, scores: Tensor, detections: InstanceData, indices: Sequence[int]
) -> Tensor:
    """Find the raw predictions that detections came from.

    Of the predictions whose boxes overlap the detection most (within 0.001 of the greatest IoU),
    it is the one with the highest score of the detection's class: what suppression leaves.

    Args:
        boxes (Tensor): (P, 4) of :func:`decode_boxes`.
        scores (Tensor): (P, C) of :func:`class_scores`.
        detections (InstanceData): ``bboxes`` (D, 4) in pixels of the image and ``labels`` (D,).
        indices (Sequence[int]): Which detections, K of them.

    Returns:
        Tensor: (K,) long, places in ``boxes``.

    Raises:
        ValueError: If no prediction overlaps a detection by half.
    """
    priors = []
    for index in indices:
        overlaps = bbox_overlaps(detections.bboxes[index][None].float(), boxes.float())[0]
        best = overlaps.max()
        if best < 0.5:
            raise ValueError(
                f'no raw prediction has the box of detection {index} (greatest IoU '
                f'{float(best):.2f}): explain a class with reduce="max" instead.'
            )
        score = scores[:, int(detections.labels[index])]
        priors.append(score.masked_fill(overlaps < best - _SAME_BOX, float('-inf')).argmax())
    return torch.stack(priors)


def box_target(
    detector: nn.Module,
    outputs: Sequence[Any],
    sample: DetDataSample,
    detections: InstanceData,
    index: int,
) -> CamTarget:
    """Explain one detection: the logit of its class in the raw prediction it came from.

    Args:
        detector (nn.Module): The detector.
        outputs (Sequence): As :func:`head_outputs` returns them, of one image.
        sample (DetDataSample): Says the sizes of the image.
        detections (InstanceData): The detections, sorted by falling score.
        index (int): Which of them.

    Returns:
        CamTarget: Its score.

    Raises:
        ValueError: If there is no such detection, or it cannot be traced back.
    """
    if not 0 <= index < len(detections):
        raise ValueError(
            f'box {index} was asked for, but there are {len(detections)} detections: give a lower '
            'index, or a lower score-thr.'
        )
    head = detector.bbox_head
    scores, boxes = class_scores(head, outputs), decode_boxes(head, outputs, sample)
    label = int(detections.labels[index])
    name = class_names(detector)[label]
    return CamTarget(
        label,
        trace_detections(boxes, scores, detections, [index]),
        f'box {index}: {name} {float(detections.scores[index]):.2f}',
        detections.bboxes[index][None],
    )


def class_target(
    detector: nn.Module,
    outputs: Sequence[Any],
    sample: DetDataSample,
    detections: InstanceData,
    name: str,
    reduce: str = 'sum',
) -> CamTarget:
    """Explain a class: all its detections together, or its strongest raw prediction.

    The scores of all places would be a sum of thousands of backgrounds; so the sum is over the
    predictions that became detections.

    Args:
        detector (nn.Module): The detector.
        outputs (Sequence): As :func:`head_outputs` returns them, of one image.
        sample (DetDataSample): Says the sizes of the image.
        detections (InstanceData): The detections.
        name (str): The class.
        reduce (str): 'sum' of the logits of its detections, or 'max' over all predictions, which
            needs no detection. Defaults to 'sum'.

    Returns:
        CamTarget: Its score; with no ``priors`` where 'sum' finds no detection of the class.

    Raises:
        ValueError: If there is no such class, or ``reduce`` is unknown.
    """
    names = class_names(detector)
    if name not in names:
        raise ValueError(f'there is no class {name!r}: the detector knows {", ".join(names)}.')
    if reduce not in ('sum', 'max'):
        raise ValueError(f"reduce is {reduce!r}, but must be 'sum' or 'max'.")
    label, head = names.index(name), detector.bbox_head
    scores = class_scores(head, outputs)
    if reduce == 'max':
        priors = scores[:, label].argmax()[None]
        return CamTarget(label, priors, f'strongest {name}', detections.bboxes[:0])
    indices = (detections.labels == label).nonzero()[:, 0].tolist()
    priors = torch.zeros(0, dtype=torch.long)
    if indices:
        boxes = decode_boxes(head, outputs, sample)
        priors = trace_detections(boxes, scores, detections, indices).unique()
    return CamTarget(label, priors, f'{len(indices)} x {name}', detections.bboxes[indices])


def class_names(detector: nn.Module) -> List[str]:
    """Name the classes of a detector.

    Args:
        detector (nn.Module): With ``dataset_meta``, if it has been trained.

    Returns:
        list[str]: The names; ``class 0`` … where they do not fit the head.
    """
    names = list(getattr(detector, 'dataset_meta', {}).get('classes', ()))
    num = detector.bbox_head.num_classes
    return names if len(names) == num else [f'class {label}' for label in range(num)]


def _is_dense(outputs: Any, width: int) -> bool:
    if not isinstance(outputs, (list, tuple)) or len(outputs) < 2:
        return False
    levels = outputs[0]
    return isinstance(levels, (list, tuple)) and all(
        torch.is_tensor(level) and level.dim() == 4 and level.shape[1] % width == 0
        for level in levels
    )


def _is_factor(levels: Optional[Any], scores: Sequence[Tensor], width: int) -> bool:
    """Whether maps hold one number for every prior."""
    return isinstance(levels, (list, tuple)) and all(
        torch.is_tensor(level) and level.dim() == 4 and level.shape[1] * width == score.shape[1]
        for level, score in zip(levels, scores)
    )
