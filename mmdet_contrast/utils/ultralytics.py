"""From the key names of Ultralytics' YOLOv8 detection models to those of ``YOLOv8Detector``.

Names and shapes only: nothing here imports torch or Ultralytics.
"""

import re
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple

from .ultralytics_report import UltralyticsReport

__all__ = ['PARTS', 'convert_ultralytics_state_dict', 'map_ultralytics_state_dict']

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
        ValueError: If these are not the weights of a YOLOv8 detection model.

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
        ValueError: If ``parts`` is unknown; if these are not the weights of a YOLOv8 detection
            model; or if ``target`` has another size or is not of this family.

    Example:
        >>> weights, report = map_ultralytics_state_dict(theirs, 'backbone+neck', target=model)
        >>> print(report)
        >>> model.load_state_dict(weights, strict=False)
    """
    if parts not in PARTS:
        raise ValueError(f'parts is {parts!r}, but must be one of {", ".join(map(repr, PARTS))}.')
    names, fixed = _translate(state_dict, PARTS[parts])
    by_ours = {ours: theirs for theirs, ours in names.items()}
    numbers = _numbers({ours: state_dict[theirs] for ours, theirs in by_ours.items()})
    if numbers is None:
        raise ValueError(
            'the checkpoint lacks model.0.conv.weight or model.9.cv2.conv.weight, from which its '
            'size is read: give the state_dict of a whole YOLOv8 detection model.'
        )
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
        shapes, strip = _target_shapes(target, parts)
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
    origin: Dict[str, str] = {}
    layers = set()
    for key in state_dict:
        match = _NUMBERED.fullmatch(key)
        index, rest = (int(match['index']), match['rest']) if match else (-1, '')
        layers.add(index)
        if index == _HEAD and rest == _FIXED_BINS:
            fixed.append(key)
            continue
        name = _translate_one(index, rest)
        if name is None:
            unknown.append(key)
            continue
        if name in origin:
            raise ValueError(
                f'the checkpoint holds the same weights twice, as {origin[name]!r} and as {key!r}: '
                'give the state_dict of one model.'
            )
        origin[name] = key
        names[key] = name
    if unknown:
        raise ValueError(_say_unknown(unknown, len(state_dict)))
    absent = [
        index
        for index, (_, module) in _LAYERS.items()
        if index not in layers and module.split('.')[0] in modules
    ]
    if absent:
        raise ValueError(
            f'the checkpoint has no key model.{absent[-1]}.* ({_LAYERS[absent[-1]][1]}; '
            f'{len(absent)} of the layers asked for are absent): give the state_dict of a whole '
            "YOLOv8 detection model, or ask for the part 'backbone' or 'backbone+neck'."
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


def _say_unknown(unknown: List[str], total: int) -> str:
    """Say in one sentence why the keys are not those of a YOLOv8 detection model."""
    shown = ', '.join(map(repr, unknown[:3])) + (' …' if len(unknown) > 3 else '')
    found = f'{len(unknown)} of its {total} keys are unknown ({shown})'
    if any(key.endswith('conv.bias') for key in unknown):
        return (
            f'the checkpoint is a fused model, without batch normalisation: {found}; convert the '
            'weights from before `fuse()`.'
        )
    return (
        f'the checkpoint is not an Ultralytics YOLOv8 detection model: {found}; only yolov8n, s, '
        'm, l and x for detection can be converted, not other versions or tasks.'
    )


def _numbers(weights: Mapping[str, Any], prefix: str = 'backbone.') -> Optional[_Numbers]:
    """Read from shapes under our names what tells the sizes apart, None if it is not there."""

    def shape(key: str) -> tuple:
        value = weights[prefix + key]
        return tuple(getattr(value, 'shape', value))

    below = f'{prefix}stage2.1.blocks.'
    blocks = {key[len(below) :].split('.')[0] for key in weights if key.startswith(below)}
    try:
        return _Numbers(
            shape('stem.conv.weight')[0], len(blocks), shape('stage4.2.conv2.conv.weight')[0]
        )
    except KeyError:
        return None


def _target_shapes(target: Any, parts: str) -> Tuple[Dict[str, tuple], str]:
    """Give the target's shapes under detector names, and the prefix that its own names lack."""
    weights = target.state_dict() if hasattr(target, 'state_dict') else target
    if not isinstance(weights, Mapping):
        raise ValueError(
            f'target is a {type(target).__name__}, but must be a model or its state_dict.'
        )
    strip = '' if any(key.startswith('backbone.') for key in weights) else 'backbone.'
    if strip and parts != 'backbone':
        raise ValueError(
            f"target has no key under 'backbone.', so it is no detector: give the whole model, or "
            f"ask for the part 'backbone' instead of {parts!r}."
        )
    return {strip + key: tuple(value.shape) for key, value in weights.items()}, strip


def _compare_shapes(
    weights: Mapping[str, Any], numbers: _Numbers, shapes: Mapping[str, tuple]
) -> Dict[str, Tuple[tuple, tuple]]:
    """Give the weights whose shapes differ; refuse a difference that is not about classes."""
    expected = _numbers(shapes)
    if expected is None:
        raise ValueError(
            'target is not a YOLOv8 model with a YOLOv8CSPDarknet (it lacks backbone.stem, '
            'backbone.stage2.1 or backbone.stage4.2): build it from a YOLOv8 config.'
        )
    if numbers != expected:
        raise ValueError(
            f'the checkpoint is YOLOv8{numbers.size} but the model is YOLOv8{expected.size}: give '
            "the checkpoint of the model's size, or change deepen_factor, widen_factor and "
            "last_stage_out_channels to the checkpoint's."
        )
    absent = [key for key in weights if key not in shapes]
    if absent:
        raise ValueError(
            f'the model has no {absent[0]!r} ({len(absent)} weights of the checkpoint have no '
            'place in it): leave out that part of the checkpoint, or use the config of a whole '
            'YOLOv8Detector.'
        )
    differing = {
        key: (tuple(value.shape), shapes[key])
        for key, value in weights.items()
        if tuple(value.shape) != shapes[key]
    }
    other = [key for key in differing if not _CLASS_HEAD.match(key)]
    if other:
        ours, theirs = differing[other[0]]
        raise ValueError(
            f'{other[0]} has shape {ours} in the checkpoint and {theirs} in the model '
            f'({len(other)} weights differ beside the class head): use a config with the widths of '
            f'YOLOv8{numbers.size}.'
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
