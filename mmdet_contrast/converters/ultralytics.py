"""Weights of Ultralytics' YOLOv8 detection models for ``YOLOv8Detector``, key by key."""

import os.path as osp
import re
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple

import torch

from mmdet_contrast.utils.safe_loading import load_checkpoint

from .coco import ConversionError
from .keys import is_state_dict, save_weights

# What can be asked for, and the modules of YOLOv8Detector that belong to it.
PARTS = {
    'model': ('backbone', 'neck', 'bbox_head'),
    'backbone': ('backbone',),
    'backbone+neck': ('backbone', 'neck'),
}

_CONV, _C2F, _SPPF, _DETECT = 'conv', 'c2f', 'sppf', 'detect'

# Index of the layer in Ultralytics' model → its kind, and its name in YOLOv8Detector. The indices
# that are absent (10, 11, 13, 14, 17, 20) are up-sampling and concatenation, without weights.
_LAYERS = {
    0: (_CONV, 'backbone.stem'),
    1: (_CONV, 'backbone.stage1.0'),
    2: (_C2F, 'backbone.stage1.1'),
    3: (_CONV, 'backbone.stage2.0'),
    4: (_C2F, 'backbone.stage2.1'),
    5: (_CONV, 'backbone.stage3.0'),
    6: (_C2F, 'backbone.stage3.1'),
    7: (_CONV, 'backbone.stage4.0'),
    8: (_C2F, 'backbone.stage4.1'),
    9: (_SPPF, 'backbone.stage4.2'),
    12: (_C2F, 'neck.top_down_blocks.0'),
    15: (_C2F, 'neck.top_down_blocks.1'),
    16: (_CONV, 'neck.downsamples.0'),
    18: (_C2F, 'neck.bottom_up_blocks.0'),
    19: (_CONV, 'neck.downsamples.1'),
    21: (_C2F, 'neck.bottom_up_blocks.1'),
    22: (_DETECT, 'bbox_head.head_module'),
}
_HEAD = 22

_CONV_BN = r'(?:conv\.weight|bn\.(?:weight|bias|running_mean|running_var|num_batches_tracked))'
_PATTERNS = {
    _CONV: (re.compile(rf'(?P<leaf>{_CONV_BN})'),),
    _C2F: (
        re.compile(rf'cv(?P<cv>[12])\.(?P<leaf>{_CONV_BN})'),
        re.compile(rf'm\.(?P<block>\d+)\.cv(?P<cv>[12])\.(?P<leaf>{_CONV_BN})'),
    ),
    _SPPF: (re.compile(rf'cv(?P<cv>[12])\.(?P<leaf>{_CONV_BN})'),),
    _DETECT: (
        re.compile(rf'cv(?P<branch>[23])\.(?P<level>[012])\.(?P<layer>[01])\.(?P<leaf>{_CONV_BN})'),
        re.compile(r'cv(?P<branch>[23])\.(?P<level>[012])\.(?P<layer>2)\.(?P<leaf>weight|bias)'),
    ),
}
_NUMBERED = re.compile(r'(?:module\.|model\.)*(?P<index>\d+)\.(?P<rest>.+)')
_FIXED_BINS = 'dfl.conv.weight'
_FIXED_REASON = 'fixed bins of the distribution, which are no parameter here'
_CLASS_HEAD = re.compile(r'bbox_head\.head_module\.cls_convs\.\d+\.(?P<layer>\d+)\.')

# (channels of the stem, blocks of the second stage, channels of the last stage) of each size.
_SIZES = {
    (16, 2, 256): 'n',
    (32, 2, 512): 's',
    (48, 4, 576): 'm',
    (64, 6, 512): 'l',
    (80, 6, 640): 'x',
}


class _Numbers(NamedTuple):
    """What tells the sizes of YOLOv8 from each other."""

    stem: int
    blocks: int
    last: int

    @property
    def size(self) -> str:
        """str: The letter of the size, or the numbers if no official size has them."""
        unknown = f' ({self.stem} stem channels, {self.blocks} blocks, {self.last} last channels)'
        return _SIZES.get(tuple(self), unknown)


class UltralyticsReport(NamedTuple):
    """What :func:`map_ultralytics_state_dict` did.

    Attributes:
        size (str): Size of the checkpoint: 'n', 's', 'm', 'l', 'x', or its numbers if it is none.
        num_classes (int): Number of classes of the checkpoint, 0 if it has no class head.
        mapped (Dict[str, str]): Key of the checkpoint → key of the result.
        skipped (Dict[str, str]): Key of the checkpoint → why it is not in the result.
        mismatched (Dict[str, Tuple[tuple, tuple]]): Key of the model → the shape in the checkpoint
            and in the model, for weights of the class head that were left out.
        missing (List[str]): Keys of the model, in the parts asked for, that the result does not
            give; filled only if a model was given to compare with.
        messages (List[str]): Whole sentences on what a reader has to know.
    """

    size: str
    num_classes: int
    mapped: Dict[str, str]
    skipped: Dict[str, str]
    mismatched: Dict[str, Tuple[tuple, tuple]]
    missing: List[str]
    messages: List[str]

    def __str__(self) -> str:
        classes = f', {self.num_classes} classes' if self.num_classes else ''
        lines = [
            f'YOLOv8{self.size}{classes}: {len(self.mapped)} keys mapped, '
            f'{len(self.skipped)} skipped, {len(self.mismatched)} of another shape, '
            f'{len(self.missing)} of the model not given'
        ]
        reasons: Dict[str, List[str]] = {}
        for key, reason in self.skipped.items():
            reasons.setdefault(reason, []).append(key)
        for reason, keys in reasons.items():
            named = ', '.join(keys) if len(keys) <= 3 else f'{keys[0]} … {keys[-1]}'
            lines.append(f'  skipped {len(keys)}: {reason} ({named})')
        for key, (ours, theirs) in self.mismatched.items():
            lines.append(f'  shape of {key}: {ours} in the checkpoint, {theirs} in the model')
        lines += [f'  not given: {key}' for key in self.missing]
        return '\n'.join(lines + self.messages)


def convert_ultralytics_state_dict(state_dict: Mapping[str, Any]) -> Dict[str, Any]:
    """Rename the weights of an Ultralytics YOLOv8 detection model for ``YOLOv8Detector``.

    The values are passed on as they are. The one entry without a counterpart, the fixed bins of the
    distribution (``22.dfl.conv.weight``), is left out. See :func:`map_ultralytics_state_dict` for a
    report, parts of the model, and a comparison with the model to load into.

    Args:
        state_dict (Mapping[str, Any]): Plain state_dict; its keys may begin with ``module.``,
            ``model.`` or ``model.model.``.

    Returns:
        dict[str, Any]: Plain state_dict of a ``YOLOv8Detector`` of the same size and number of
        classes; loads strictly.

    Raises:
        ConversionError: If these are not the weights of a YOLOv8 detection model.

    Example:
        >>> weights = convert_ultralytics_state_dict(torch.load('yolov8n_plain.pt'))
        >>> model.load_state_dict(weights)
        <All keys matched successfully>
    """
    return map_ultralytics_state_dict(state_dict)[0]


def map_ultralytics_state_dict(
    state_dict: Mapping[str, Any], parts: str = 'model', target: Optional[Any] = None
) -> Tuple[Dict[str, Any], UltralyticsReport]:
    """Rename Ultralytics weights, whole or in part, and report on every key.

    Args:
        state_dict (Mapping[str, Any]): As in :func:`convert_ultralytics_state_dict`.
        parts (str): 'model', 'backbone' or 'backbone+neck'. The keys keep their first name
            (``backbone.``), so a backbone's file is used as
            ``init_cfg=dict(type='Pretrained', checkpoint=..., prefix='backbone.')``.
            Defaults to 'model'.
        target (nn.Module | Mapping[str, Any], optional): The model to load into, or its state_dict;
            a ``YOLOv8Detector``, or the backbone alone with ``parts='backbone'``, whose keys then
            come without ``backbone.``. Weights of the class head that do not fit, because the
            numbers of classes differ, are left out with a message.

    Returns:
        tuple[dict, UltralyticsReport]: The plain state_dict, and what was done.

    Raises:
        ConversionError: If these are not the weights of a YOLOv8 detection model, or do not fit
            ``target`` beside its class head.

    Example:
        >>> weights, report = map_ultralytics_state_dict(theirs, 'backbone+neck', target=model)
        >>> print(report)
        >>> model.load_state_dict(weights, strict=False)
    """
    names, fixed = _translate(state_dict, PARTS[parts])
    by_ours = {ours: theirs for theirs, ours in names.items()}
    numbers = _numbers({ours: state_dict[theirs] for ours, theirs in by_ours.items()})
    class_bias = by_ours.get('bbox_head.head_module.cls_convs.0.2.bias')
    num_classes = int(state_dict[class_bias].shape[0]) if class_bias else 0

    wanted = {o: t for o, t in by_ours.items() if o.split('.')[0] in PARTS[parts]}
    skipped = {t: f'not in the part {parts!r}' for o, t in by_ours.items() if o not in wanted}
    skipped.update({key: _FIXED_REASON for key in fixed})
    mismatched: Dict[str, Tuple[tuple, tuple]] = {}
    missing: List[str] = []
    messages: List[str] = []
    strip = ''
    if target is not None:
        own = target.state_dict() if hasattr(target, 'state_dict') else target
        strip = '' if any(key.startswith('backbone.') for key in own) else 'backbone.'
        shapes = {strip + key: tuple(value.shape) for key, value in own.items()}
        mismatched = _compare_shapes({o: state_dict[t] for o, t in wanted.items()}, numbers, shapes)
        left_out = _class_head_to_leave_out(wanted, mismatched)
        if left_out:
            ours = shapes['bbox_head.head_module.cls_convs.0.2.bias'][0]
            messages.append(
                f'The checkpoint has {num_classes} classes and the model {ours}: '
                f'{len(left_out)} weights of the class head were left out and stay as the model '
                'initialises them.'
            )
        for name in left_out:
            skipped[wanted.pop(name)] = 'class head for another number of classes'
        missing = [
            key[len(strip) :]
            for key in shapes
            if key.split('.')[0] in PARTS[parts] and key not in wanted
        ]
    result = {ours[len(strip) :]: state_dict[theirs] for ours, theirs in wanted.items()}
    mapped = {theirs: ours[len(strip) :] for ours, theirs in wanted.items()}
    report = UltralyticsReport(
        numbers.size, num_classes, mapped, skipped, mismatched, missing, messages
    )
    return result, report


def _translate(
    state_dict: Mapping[str, Any], modules: Tuple[str, ...]
) -> Tuple[Dict[str, str], List[str]]:
    """Give their key → our key, and their keys that have no counterpart by design.

    Layers of other ``modules`` may be absent.
    """
    names: Dict[str, str] = {}
    fixed: List[str] = []
    unknown: List[str] = []
    layers = set()
    for key in state_dict:
        match = _NUMBERED.fullmatch(key)
        index, rest = (int(match['index']), match['rest']) if match else (-1, '')
        layers.add(index)
        name = _translate_one(index, rest)
        if index == _HEAD and rest == _FIXED_BINS:
            fixed.append(key)
        elif name is None:
            unknown.append(key)
        else:
            names[key] = name
    if unknown:
        shown = ', '.join(map(repr, unknown[:3])) + (' …' if len(unknown) > 3 else '')
        raise ConversionError(
            'the checkpoint is not a YOLOv8 detection model (n, s, m, l, x) before `fuse()`: '
            f'{len(unknown)} of its {len(state_dict)} keys are unknown ({shown}).'
        )
    absent = [
        index
        for index, (_, module) in _LAYERS.items()
        if index not in layers and module.split('.')[0] in modules
    ]
    if absent:
        raise ConversionError(
            f'the checkpoint has no key model.{absent[-1]}.* ({_LAYERS[absent[-1]][1]}): give a '
            "whole YOLOv8 detection model, or convert 'backbone' or 'backbone+neck' alone."
        )
    return names, fixed


def _translate_one(index: int, rest: str) -> Optional[str]:
    """Give our name of one of their keys, None if there is none."""
    if index not in _LAYERS:
        return None
    kind, module = _LAYERS[index]
    match = next(filter(None, (p.fullmatch(rest) for p in _PATTERNS[kind])), None)
    if match is None:
        return None
    found = match.groupdict()
    leaf = found['leaf']
    if kind == _CONV:
        return f'{module}.{leaf}'
    if kind == _SPPF:
        return f'{module}.conv{found["cv"]}.{leaf}'
    if kind == _C2F:
        if found.get('block') is not None:
            return f'{module}.blocks.{found["block"]}.conv{found["cv"]}.{leaf}'
        return f'{module}.{"in_conv" if found["cv"] == "1" else "out_conv"}.{leaf}'
    branch = 'reg_convs' if found['branch'] == '2' else 'cls_convs'
    return f'{module}.{branch}.{found["level"]}.{found["layer"]}.{leaf}'


def _numbers(weights: Mapping[str, Any]) -> _Numbers:
    """Read from shapes under our names what tells the sizes apart; zeros where it is not there."""

    def channels(key: str) -> int:
        value = weights.get(key, (0,))
        return int(getattr(value, 'shape', value)[0])

    below = 'backbone.stage2.1.blocks.'
    blocks = {key[len(below) :].split('.')[0] for key in weights if key.startswith(below)}
    return _Numbers(
        channels('backbone.stem.conv.weight'),
        len(blocks),
        channels('backbone.stage4.2.conv2.conv.weight'),
    )


def _compare_shapes(
    weights: Mapping[str, Any], numbers: _Numbers, shapes: Mapping[str, tuple]
) -> Dict[str, Tuple[tuple, tuple]]:
    """Give the weights whose shapes differ; refuse a difference that is not about classes."""
    expected = _numbers(shapes)
    if numbers != expected:
        raise ConversionError(
            f'the checkpoint is YOLOv8{numbers.size} but the model is YOLOv8{expected.size}: give '
            "a checkpoint of the model's size, or change `scale` of the model."
        )
    differing = {
        key: (tuple(value.shape), shapes.get(key, ()))
        for key, value in weights.items()
        if tuple(value.shape) != shapes.get(key)
    }
    other = [key for key in differing if key not in shapes or not _CLASS_HEAD.match(key)]
    if other:
        ours, theirs = differing[other[0]]
        raise ConversionError(
            f'{other[0]} has shape {ours} in the checkpoint and {theirs or "no place"} in the '
            f'model ({len(other)} such weights): give the config of a YOLOv8{numbers.size}.'
        )
    return differing


def _class_head_to_leave_out(
    weights: Mapping[str, Any], mismatched: Mapping[str, Any]
) -> List[str]:
    """List the class head's keys that cannot be used when some of them do not fit.

    The hidden layers of the class branch stay if all of them fit; their width depends on the number
    of classes in the smaller sizes.
    """
    if not mismatched:
        return []
    layers = {key: _CLASS_HEAD.match(key) for key in weights}
    hidden_fits = all(_CLASS_HEAD.match(key)['layer'] == '2' for key in mismatched)
    return [k for k, m in layers.items() if m and (m['layer'] == '2' or not hidden_fits)]


def read_ultralytics_checkpoint(path: str) -> Dict[str, torch.Tensor]:
    """Read the weights of an Ultralytics model as a plain state_dict in float32.

    Args:
        path (str): Local file with a plain state_dict (or one under ``state_dict`` or ``model``),
            or a full Ultralytics checkpoint, which holds a pickled model under ``ema`` or ``model``
            and can be read only where the package ``ultralytics`` is installed. The averaged
            weights (``ema``) are preferred, as Ultralytics does. A pickled model runs code when it
            is read: it has to be trusted, see
            :func:`~mmdet_contrast.utils.safe_loading.trust_checkpoints`.

    Returns:
        dict[str, Tensor]: The weights under Ultralytics' names; those in half precision as float32.

    Raises:
        FileNotFoundError: If there is no such file.
        ConversionError: If it is a full Ultralytics checkpoint and ``ultralytics`` is not
            installed, or if the file holds no weights.
        LaunchError: If it is no checkpoint, or a full one that is not trusted.
    """
    try:
        content = load_checkpoint(path)
    except ModuleNotFoundError as error:
        raise ConversionError(
            f'{path!r} holds a pickled model, and the package {error.name!r} is not installed: '
            "where it is, write torch.save(YOLO('FILE').model.state_dict(), 'PLAIN_FILE'), and "
            'convert that file.'
        ) from error
    candidates = [content]
    if isinstance(content, Mapping):
        candidates += [content.get(key) for key in ('ema', 'model', 'state_dict')]
    for candidate in candidates:
        weights = getattr(candidate, 'state_dict', lambda: candidate)()  # noqa: B023
        if is_state_dict(weights):
            return {k: v.float() if v.is_floating_point() else v for k, v in weights.items()}
    raise ConversionError(f"{path!r} holds neither a state_dict nor a model ('ema', 'model').")


def convert_ultralytics_checkpoint(
    source: str, target: str, parts: str = 'model', model: Optional[Any] = None
) -> UltralyticsReport:
    """Convert a file of Ultralytics weights to a checkpoint for ``load_from`` or ``init_cfg``.

    Args:
        source (str): See :func:`read_ultralytics_checkpoint`.
        target (str): File to write, whole or not at all: ``dict(meta=..., state_dict=...)``.
        parts (str): 'model', 'backbone' or 'backbone+neck'. Defaults to 'model'.
        model (nn.Module | Mapping[str, Tensor], optional): The model to compare shapes with, see
            :func:`map_ultralytics_state_dict`.

    Returns:
        UltralyticsReport: What was mapped, skipped, mismatched and left out.

    Raises:
        FileNotFoundError: If ``source`` does not exist.
        ConversionError: If ``source`` is no YOLOv8 detection model or does not fit ``model``.
    """
    weights, report = map_ultralytics_state_dict(read_ultralytics_checkpoint(source), parts, model)
    meta = dict(converted_from=osp.basename(source), parts=parts, size=report.size)
    save_weights(weights, meta, target)
    return report
