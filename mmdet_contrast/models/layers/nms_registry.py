"""Non-maximum suppression that a ``test_cfg`` can name beside mmcv's own."""

import inspect
from typing import Any, Dict, Tuple

import torch
from mmengine.registry import Registry
from torch import Tensor

from mmdet_contrast.compat import extend_batched_nms

NMS_OPS = Registry('NMS operation')
"""Functions ``op(boxes, scores, labels, **parameters) -> (dets, keep)``.

``boxes`` are (N, 4) and ``scores`` (N,) in float32 or float64, ``labels`` (N,); ``dets`` (K, 5) are
the boxes and scores of the result, by falling score, and ``keep`` (K,) the indices they stand for.
A registered function's name becomes a ``type`` of ``test_cfg.nms``.
"""

_COMMON = ('class_agnostic', 'max_num')


def run_nms_op(
    boxes: Tensor,
    scores: Tensor,
    idxs: Tensor,
    nms_cfg: Dict[str, Any],
    class_agnostic: bool = False,
) -> Tuple[Tensor, Tensor]:
    """Run a registered operation where mmcv's ``batched_nms`` is called.

    Detectors take scores from the result, but most of them take the boxes from their own tensor,
    at ``keep``. An operation that moves boxes therefore has them written to those rows of
    ``boxes`` as well.

    Args:
        boxes (Tensor): (N, 4) float, (x1, y1, x2, y2); rows ``keep`` are overwritten in place if
            the operation moves boxes.
        scores (Tensor): (N,) float.
        idxs (Tensor): (N,) integers: classes (or levels); different ones do not meet.
        nms_cfg (dict): ``type``, the operation's parameters, ``class_agnostic`` (bool) and
            ``max_num`` (int; -1 for no limit).
        class_agnostic (bool): Used where ``nms_cfg`` does not say. Defaults to False.

    Returns:
        tuple[Tensor, Tensor]: (K, 5) boxes and scores by falling score, and (K,) indices.

    Raises:
        ValueError: If a parameter is unknown, missing or out of range, or boxes are not (N, 4).
    """
    parameters = dict(nms_cfg)
    name = parameters.pop('type')
    op = NMS_OPS.module_dict[name]
    known = list(inspect.signature(op).parameters.values())[3:]
    names = [parameter.name for parameter in known]
    unknown = [key for key in parameters if key not in names and key not in _COMMON]
    missing = [
        parameter.name
        for parameter in known
        if parameter.default is parameter.empty and parameter.name not in parameters
    ]
    if unknown or missing:
        problem = f'lacks {missing[0]!r}' if missing else f'has the unknown key {unknown[0]!r}'
        raise ValueError(
            f'test_cfg.nms with type={name!r} {problem}: it takes {", ".join([*names, *_COMMON])}.'
        )
    if boxes.size(-1) != 4:
        raise ValueError(
            f'{name} needs boxes of shape (N, 4), (x1, y1, x2, y2), got {tuple(boxes.shape)}: '
            "rotated boxes need another type in test_cfg.nms, e.g. 'nms_rotated'."
        )
    class_agnostic = parameters.pop('class_agnostic', class_agnostic)
    max_num = parameters.pop('max_num', -1)
    with torch.no_grad():
        labels = torch.zeros_like(idxs) if class_agnostic else idxs
        # Half precision has 11 bits: sides of large boxes would be rounded to whole pixels.
        dtype = torch.promote_types(boxes.dtype, torch.float32)
        dets, keep = op(boxes.to(dtype), scores.to(dtype), labels, **parameters)
        dets = dets.to(boxes.dtype)
        if max_num > 0:
            dets, keep = dets[:max_num], keep[:max_num]
        if not torch.equal(boxes[keep], dets[:, :4]):
            boxes[keep] = dets[:, :4]
    return dets, keep


def check_threshold(name: str, iou_threshold: Any) -> None:
    """Refuse an ``iou_threshold`` that is not a number in [0, 1].

    Args:
        name (str): The operation, for the message.
        iou_threshold (Any): What the config gave.

    Raises:
        ValueError: If it is not a number in [0, 1].
    """
    number = isinstance(iou_threshold, (int, float)) and not isinstance(iou_threshold, bool)
    if not (number and 0 <= iou_threshold <= 1):
        raise ValueError(
            f'{name} got iou_threshold={iou_threshold!r} from test_cfg.nms: give a number in '
            '[0, 1], e.g. 0.6.'
        )


extend_batched_nms(NMS_OPS.module_dict, run_nms_op)
