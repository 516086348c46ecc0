"""The detector that classes are added to: what is read of it, and which ones are refused."""

from typing import Any, Dict, List, NamedTuple

from mmdet.models.dense_heads import (
    ATSSHead,
    ATSSVLFusionHead,
    AutoAssignHead,
    CondInstBboxHead,
    FCOSHead,
    GFLHead,
    LADHead,
    LDHead,
    RetinaHead,
    RTMDetInsHead,
    TOODHead,
    VFNetHead,
)
from mmdet.registry import MODELS
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope
from mmengine.runner import CheckpointLoader
from torch import nn

from mmdet_contrast.models.dense_heads import YOLOv8Head
from mmdet_contrast.utils.checkpoint import classes_of, find_misfits, refuse_misfits
from mmdet_contrast.utils.config import LaunchError, type_name
from mmdet_contrast.utils.model import model_section

# Heads that give (N, A * C, H, W) class logits and then boxes, subclasses included.
_HEADS = (YOLOv8Head, RetinaHead, FCOSHead, ATSSHead, GFLHead)
# Subclasses that give something else, or need more than boxes.
_OTHER_HEADS = (
    ATSSVLFusionHead,
    AutoAssignHead,
    CondInstBboxHead,
    LADHead,
    LDHead,
    RTMDetInsHead,
    TOODHead,
    VFNetHead,
)
_SUPPORTED = 'YOLOv8, RetinaNet, FCOS, ATSS, GFL, RTMDet and their relatives'


class OldDetector(NamedTuple):
    """A detector that can get more classes."""

    section: Dict[str, Any]
    """The ``model`` section of its config, without pre-trained weights of parts of it."""
    head: nn.Module
    """Its head, built from the config."""
    classes: List[str]
    """Their names, from the checkpoint."""


def read_teacher(source: Config, checkpoint: str) -> OldDetector:
    """Read a detector that classes can be added to.

    Args:
        source (Config): The config that trained it.
        checkpoint (str): Its weights, file or URL.

    Returns:
        OldDetector: What it is.

    Raises:
        LaunchError: If classes cannot be added to it, or config and checkpoint do not fit.
        FileNotFoundError: If there is no such checkpoint.
    """
    given = source.filename or 'config'
    for key in ('model', 'train_dataloader', 'optim_wrapper'):
        if not source.get(key):
            raise LaunchError(
                f'config {given!r} has no {key}: give the config that trained the detector.'
            )
    if type_name(source.model.type) == 'DistillationDetector':
        raise LaunchError(
            f'config {given!r} trains a student of a teacher: give the plain config of the '
            'student, such as the detector.py that an addition writes.'
        )
    section = _without_pretrained(model_section(source.to_dict()).to_dict())
    init_default_scope(source.get('default_scope') or 'mmdet')
    model = MODELS.build(ConfigDict(section))
    kind, head = type(model).__name__, getattr(model, 'bbox_head', None)
    if hasattr(model, 'roi_head') or hasattr(model, 'rpn_head'):
        raise LaunchError(
            f'{kind} of config {given!r} is a two-stage detector: classes can be added to '
            f'single-stage detectors with sigmoid scores, {_SUPPORTED}.'
        )
    if not getattr(head, 'use_sigmoid_cls', True):
        raise LaunchError(
            f'{type(head).__name__} of config {given!r} has softmax scores, in which old and new '
            'classes compete: classes can be added to detectors with sigmoid scores only.'
        )
    if not isinstance(head, _HEADS) or isinstance(head, _OTHER_HEADS):
        raise LaunchError(
            f'the head of {kind} in config {given!r}, {type(head).__name__}, gives no maps of '
            f'class logits and boxes that could be compared: classes can be added to {_SUPPORTED}.'
        )
    state = CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu')
    refuse_misfits(
        find_misfits(model, state), f'checkpoint {checkpoint!r}', f'the model of config {given!r}'
    )
    names = classes_of(state)
    if not names:
        raise LaunchError(
            f'checkpoint {checkpoint!r} does not name its classes: put '
            "meta=dict(dataset_meta=dict(classes=(...))) into it, in the order of the detector's "
            'head.'
        )
    if len(names) != head.num_classes:
        raise LaunchError(
            f'checkpoint {checkpoint!r} names {len(names)} classes and the head of config '
            f'{given!r} has {head.num_classes}: give config and checkpoint of one detector.'
        )
    return OldDetector(section, head, names)


def _without_pretrained(node: Any) -> Any:
    """Leave out pre-trained weights of parts of a model: the teacher's replace them."""
    if isinstance(node, (list, tuple)):
        return type(node)([_without_pretrained(child) for child in node if not _loads(child)])
    if not isinstance(node, dict):
        return node
    dropped = ('pretrained', 'init_cfg') if _loads(node.get('init_cfg')) else ('pretrained',)
    return {key: _without_pretrained(value) for key, value in node.items() if key not in dropped}


def _loads(init: Any) -> bool:
    kinds = ('Pretrained', 'PretrainedInit')
    return isinstance(init, dict) and type_name(init.get('type')) in kinds
