"""Heat maps of what a detector's scores rest on."""

from copy import deepcopy
from typing import Any, List, NamedTuple, Optional, Sequence, Tuple

import torch
from mmdet.models.detectors import DetectionTransformer
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox_overlaps, get_box_tensor
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torch.nn import functional as F

from mmdet_contrast.utils.config import LaunchError
from mmdet_contrast.utils.model import ModuleCapture, evaluating

METHODS = ('grad-cam', 'hires-cam')
# Two predictions with boxes this alike are told apart by their scores.
_SAME_BOX = 1e-3
_UNTRACED = 'the detection cannot be traced back; a class without detections can be explained.'


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
        LaunchError: If the detector has no such head.
    """
    head = getattr(detector, 'bbox_head', None)
    # Heads of transformers look alike, but take queries instead of feature maps.
    if not hasattr(head, 'cls_out_channels') or isinstance(detector, DetectionTransformer):
        raise LaunchError(
            f'{type(detector).__name__} has no dense head, so there is no score to explain: see '
            'its feature maps (tools/analysis_tools/feature_map.py).'
        )
    return tuple(head(detector.extract_feat(inputs)))


def class_logits(head: nn.Module, levels: Sequence[Tensor]) -> Tensor:
    """Flatten the class logits of a dense head in MMDetection's order of priors.

    Args:
        head (nn.Module): The head.
        levels (Sequence[Tensor]): (N, A * C, h, w) logits of each level, the first of
            :func:`head_outputs`.

    Returns:
        Tensor: (N, P, C) logits, before sigmoid or softmax; P counts levels, rows, columns and
        the priors of a place, in this order.
    """
    width = head.cls_out_channels
    flat = [level.permute(0, 2, 3, 1).reshape(len(level), -1, width) for level in levels]
    return torch.cat(flat, dim=1)


@torch.no_grad()
def trace_detections(
    head: nn.Module,
    outputs: Sequence[Any],
    sample: DetDataSample,
    detections: InstanceData,
    indices: Sequence[int],
) -> Tensor:
    """Find the raw predictions that detections came from.

    Of the predictions whose boxes overlap the detection most (within 0.001 of the greatest IoU),
    it is the one with the highest score of the detection's class: what suppression leaves.

    Args:
        head (nn.Module): A dense head.
        outputs (Sequence): As :func:`head_outputs` returns them, of one image.
        sample (DetDataSample): Says the sizes of the image.
        detections (InstanceData): ``bboxes`` (D, 4) in pixels of the image and ``labels`` (D,).
        indices (Sequence[int]): Which detections, K of them.

    Returns:
        Tensor: (K,) long, places in the flattened maps of :func:`class_logits`.

    Raises:
        ValueError: If no prediction overlaps a detection by half, or the head does not return the
            box of each prediction.
    """
    found = get_box_tensor(detections.bboxes).float()
    boxes, scores = _decode(head, outputs, sample).float(), _class_scores(head, outputs)
    priors = []
    for index in indices:
        overlaps = bbox_overlaps(found[index][None], boxes)[0]
        best = overlaps.max()
        if best < 0.5:
            raise ValueError(
                f'no raw prediction has the box of detection {index} (greatest IoU '
                f'{float(best):.2f}): {_UNTRACED}'
            )
        score = scores[:, int(detections.labels[index])]
        priors.append(score.masked_fill(overlaps < best - _SAME_BOX, float('-inf')).argmax())
    return torch.stack(priors)


def _class_scores(head: nn.Module, outputs: Sequence[Any]) -> Tensor:
    """Compute the (P, C) scores that post-processing ranks predictions by, centreness included."""
    logits = class_logits(head, outputs[0])[0].float()
    scores = logits.sigmoid() if getattr(head, 'use_sigmoid_cls', True) else logits.softmax(-1)
    if _has_factor(outputs, head.cls_out_channels):
        factors = [level[0].permute(1, 2, 0).flatten() for level in outputs[2]]
        scores = scores * torch.cat(factors).float().sigmoid()[:, None]
    return scores


def _decode(head: nn.Module, outputs: Sequence[Any], sample: DetDataSample) -> Tensor:
    """Decode the (P, 4) boxes of all predictions with the head's own post-processing.

    ``predict_by_feat`` drops and sorts predictions by their scores. So it is given scores that
    fall from the first prior to the last and are all above its threshold, with the head's own
    boxes: then it returns every box, in the order of the priors, whatever the head's way to
    decode them is.
    """
    width = head.cls_out_channels
    priors = [level[0].numel() // width for level in outputs[0]]
    # float64 before the logit: neighbours stay apart in float32 up to millions of priors
    order = torch.linspace(0.75, 0.25, sum(priors), dtype=torch.float64).logit()
    fake = []
    for level, values in zip(outputs[0], order.split(priors)):
        logits = level.new_full((*level.shape[-2:], level.shape[1] // width, width), -50)
        # A softmax head has its background last: 0 there makes it a sigmoid of the first class.
        logits[..., -1] = 0 if not getattr(head, 'use_sigmoid_cls', True) else -50
        logits[..., 0] = values.to(logits).reshape(logits.shape[:-1])
        fake.append(logits.flatten(2).permute(2, 0, 1)[None])
    rest = list(outputs[1:])
    if _has_factor(outputs, width):
        # Centreness or objectness multiplies the score; sigmoid(50) is 1.
        rest[1] = [torch.full_like(level, 50) for level in rest[1]]
    cfg = ConfigDict(deepcopy(head.test_cfg))
    cfg.update(score_thr=0.1, nms_pre=len(order), max_per_img=len(order), min_bbox_size=-1)
    found = head.predict_by_feat(
        fake, *rest, batch_img_metas=[sample.metainfo], cfg=cfg, rescale=True, with_nms=False
    )[0]
    if len(found) != len(order):
        raise ValueError(
            f'{type(head).__name__} decodes {len(found)} boxes of {len(order)} predictions: '
            f'{_UNTRACED}'
        )
    return get_box_tensor(found.bboxes)


def _has_factor(outputs: Sequence[Any], width: int) -> bool:
    """Whether a head's third maps hold one number for every prior."""
    levels = outputs[2] if len(outputs) > 2 else None
    return isinstance(levels, (list, tuple)) and all(
        torch.is_tensor(level) and level.dim() == 4 and level.shape[1] * width == score.shape[1]
        for level, score in zip(levels, outputs[0])
    )


def box_target(
    detector: nn.Module,
    outputs: Sequence[Any],
    sample: DetDataSample,
    detections: InstanceData,
    index: int,
) -> CamTarget:
    """Explain one detection: the logit of its class in the raw prediction it came from.

    Args:
        detector (nn.Module): The detector, with ``dataset_meta``.
        outputs (Sequence): As :func:`head_outputs` returns them, of one image.
        sample (DetDataSample): Says the sizes of the image.
        detections (InstanceData): The detections, sorted by falling score.
        index (int): Which of them.

    Returns:
        CamTarget: Its score.

    Raises:
        ValueError: If it cannot be traced back.
    """
    label = int(detections.labels[index])
    name = detector.dataset_meta['classes'][label]
    return CamTarget(
        label,
        trace_detections(detector.bbox_head, outputs, sample, detections, [index]),
        f'box {index}: {name} {float(detections.scores[index]):.2f}',
        get_box_tensor(detections.bboxes)[index][None],
    )


def class_target(
    detector: nn.Module,
    outputs: Sequence[Any],
    sample: DetDataSample,
    detections: InstanceData,
    name: str,
) -> CamTarget:
    """Explain a class: all its detections together, or, without any, its greatest logit.

    The scores of all places would be a sum of thousands of backgrounds; so the sum is over the
    predictions that became detections.

    Args:
        detector (nn.Module): The detector, with ``dataset_meta``.
        outputs (Sequence): As :func:`head_outputs` returns them, of one image.
        sample (DetDataSample): Says the sizes of the image.
        detections (InstanceData): The detections.
        name (str): The class.

    Returns:
        CamTarget: Its score.

    Raises:
        LaunchError: If there is no such class.
        ValueError: If a detection cannot be traced back.
    """
    head, names = detector.bbox_head, list(detector.dataset_meta['classes'])
    if name not in names:
        raise LaunchError(f'the detector has no class {name!r}, but {", ".join(names)}.')
    label = names.index(name)
    own = (detections.labels == label).nonzero()[:, 0].tolist()
    if own:
        priors = trace_detections(head, outputs, sample, detections, own).unique()
        text = f'{len(own)} x {name}'
    else:
        priors = class_logits(head, outputs[0])[0, :, label].argmax()[None]
        text = f'strongest {name}, not detected'
    return CamTarget(label, priors, text, get_box_tensor(detections.bboxes)[own])


class ActivationMap(NamedTuple):
    """A heat map of an input.

    Attributes:
        heat (Tensor): (H, W) float32 in pixels of the padded input; its greatest value is 1, or
            all are 0.
        used (list[str]): The feature maps it is the mean of, as ``name[level]``.
        empty (list[str]): Those that are 0 everywhere and were left out: the score does not rest on
            them, or only where it is held down.
    """

    heat: Tensor
    used: List[str]
    empty: List[str]


def class_activation_map(
    detector: nn.Module,
    inputs: Tensor,
    target: CamTarget,
    modules: Sequence[str] = ('neck',),
    level: Optional[int] = None,
    method: str = 'hires-cam',
) -> ActivationMap:
    """Compute a heat map of one image from feature maps A of (C, h, w) and a score y.

    - ``grad-cam`` (Selvaraju et al., arXiv 1610.02391): ReLU(Σ_c w_c A_c), where w_c is the mean
      over all places of ∂y/∂A_c.
    - ``hires-cam`` (Draelos & Carin, arXiv 2011.08891): ReLU(Σ_c ∂y/∂A_c · A_c), place by place.

    The heat maps of several feature maps are each scaled to 1, enlarged to the input and averaged.

    The detector is left as it was: modes, ``requires_grad``, gradients and statistics. During the
    call it is in evaluation mode.

    Args:
        detector (nn.Module): A single-stage detector with a dense head.
        inputs (Tensor): (1, 3, H, W) normalised image.
        target (CamTarget): The score.
        modules (Sequence[str]): Dotted paths of modules. Defaults to ('neck',).
        level (int, optional): Which map of a module that gives several. Defaults to all of them.
        method (str): See above. Defaults to 'hires-cam', which keeps to the places that the score
            rests on; averaged weights also light what is alike elsewhere.

    Returns:
        ActivationMap: The heat map.

    Raises:
        ValueError: If a module or a level does not exist, or a module gives maps of regions instead
            of the image.
        LaunchError: If the detector has no dense head.

    Example:
        >>> outputs = head_outputs(detector, inputs)
        >>> target = box_target(detector, outputs, sample, detections, 0)
        >>> heat = class_activation_map(detector, inputs, target, ['backbone.layer3']).heat
    """
    with evaluating(detector), torch.enable_grad():
        with ModuleCapture(detector, modules, gradient=True) as capture:
            logits = class_logits(detector.bbox_head, head_outputs(detector, inputs)[0])
        chosen = [capture.maps[place] for place in capture.chosen(level, one_image=True)]
        features = [entry.features for entry in chosen]
        heats = _gradient_cam(target.score(logits)[0], features, method)
    size = tuple(inputs.shape[-2:])
    total, used, empty = torch.zeros(size), [], []
    for entry, heat in zip(chosen, heats):
        # not a number is no zero: it is seen in the result
        shows_nothing = float(heat.max()) <= 0
        (empty if shows_nothing else used).append(f'{entry.name}[{entry.level}]')
        if not shows_nothing:
            heat = (heat / heat.max()).float().cpu()
            total += F.interpolate(heat[None, None], size=size, mode='bilinear')[0, 0]
    return ActivationMap(total / total.max() if used else total, used, empty)


def _gradient_cam(score: Tensor, features: List[Tensor], method: str) -> List[Tensor]:
    """Weight the channels by the gradient of the score; zeros where there is no way to it."""
    gradients: Sequence[Optional[Tensor]] = [None] * len(features)
    if score.requires_grad:
        gradients = torch.autograd.grad(score, features, allow_unused=True)
    heats = []
    for entry, gradient in zip(features, gradients):
        weights = torch.zeros_like(entry) if gradient is None else gradient
        if method == 'grad-cam':
            weights = weights.mean((2, 3), keepdim=True)
        heats.append((weights * entry.detach()).sum(1)[0].clamp(min=0))
    return heats
