"""Weights of Ultralytics' YOLOv8 detection models for ``YOLOv8Detector``, key by key."""

import os.path as osp
import re
from typing import Any, Dict, List, Mapping, Optional, Tuple

from torch import Tensor

from mmdet_contrast.utils.config import LaunchError
from mmdet_contrast.utils.safe_loading import load_from_local

from .keys import is_state_dict, save_weights

# What can be asked for, and the modules of YOLOv8Detector that belong to it.
PARTS = {'model': ('backbone', 'neck', 'bbox_head'), 'backbone': ('backbone',)}

# Index of the layer in Ultralytics' model → its name in YOLOv8Detector. The indices that are absent
# (10, 11, 13, 14, 17, 20) are up-sampling and concatenation, without weights.
_LAYERS = {
    0: 'backbone.stem',
    1: 'backbone.stage1.0',
    2: 'backbone.stage1.1',
    3: 'backbone.stage2.0',
    4: 'backbone.stage2.1',
    5: 'backbone.stage3.0',
    6: 'backbone.stage3.1',
    7: 'backbone.stage4.0',
    8: 'backbone.stage4.1',
    9: 'backbone.stage4.2',
    12: 'neck.top_down_blocks.0',
    15: 'neck.top_down_blocks.1',
    16: 'neck.downsamples.0',
    18: 'neck.bottom_up_blocks.0',
    19: 'neck.downsamples.1',
    21: 'neck.bottom_up_blocks.1',
    22: 'bbox_head.head_module',
}
_SPPF, _HEAD = 9, 22
_C2F = (2, 4, 6, 8, 12, 15, 18, 21)

_KEY = re.compile(r'(?:module\.|model\.)*(?P<index>\d+)\.(?P<rest>.+)')
_CONV_BN = r'((?:conv\.weight|bn\.(?:weight|bias|running_mean|running_var|num_batches_tracked)))'
# What follows the index → the same in YOLOv8Detector, by the kind of layer.
_IN_CONV = {_CONV_BN: r'\1'}
_IN_SPPF = {rf'cv([12])\.{_CONV_BN}': r'conv\1.\2'}
_IN_C2F = {
    rf'cv1\.{_CONV_BN}': r'in_conv.\1',
    rf'cv2\.{_CONV_BN}': r'out_conv.\1',
    rf'm\.(\d+)\.cv([12])\.{_CONV_BN}': r'blocks.\1.conv\2.\3',
}
_IN_HEAD = {
    rf'cv2\.([012]\.[01])\.{_CONV_BN}': r'reg_convs.\1.\2',
    rf'cv3\.([012]\.[01])\.{_CONV_BN}': r'cls_convs.\1.\2',
    r'cv2\.([012]\.2\.(?:weight|bias))': r'reg_convs.\1',
    r'cv3\.([012]\.2\.(?:weight|bias))': r'cls_convs.\1',
}
# The fixed bins of the distribution, which are no parameter here.
_FIXED_BINS = 'dfl.conv.weight'


def convert_ultralytics_state_dict(state_dict: Mapping[str, Any]) -> Dict[str, Any]:
    """Rename the weights of an Ultralytics YOLOv8 detection model for ``YOLOv8Detector``.

    The values are passed on as they are. The one entry without a counterpart, the fixed bins of the
    distribution (``22.dfl.conv.weight``), is left out.

    Args:
        state_dict (Mapping[str, Any]): Plain state_dict; its keys may begin with ``module.``,
            ``model.`` or ``model.model.``.

    Returns:
        dict[str, Any]: Plain state_dict of a ``YOLOv8Detector`` of the same size and number of
        classes; loads strictly.

    Raises:
        LaunchError: If these are not the weights of a YOLOv8 detection model.

    Example:
        >>> weights = convert_ultralytics_state_dict(torch.load('yolov8n_plain.pt'))
        >>> model.load_state_dict(weights)
        <All keys matched successfully>
    """
    return map_ultralytics_state_dict(state_dict)[0]


def map_ultralytics_state_dict(
    state_dict: Mapping[str, Any], parts: str = 'model'
) -> Tuple[Dict[str, Any], Dict[str, Optional[str]]]:
    """Rename Ultralytics weights, whole or in part, and say what became of every key.

    Args:
        state_dict (Mapping[str, Any]): As in :func:`convert_ultralytics_state_dict`.
        parts (str): 'model' or 'backbone'. The keys keep their first name (``backbone.``), so a
            backbone's file is used as
            ``init_cfg=dict(type='Pretrained', checkpoint=..., prefix='backbone.')``.
            Defaults to 'model'.

    Returns:
        tuple[dict, dict[str, str | None]]: The plain state_dict, and the new key of each old one,
        None if it was left out.

    Raises:
        LaunchError: If these are not the weights of a YOLOv8 detection model.
    """
    names = _translate(state_dict, PARTS[parts])
    for theirs, ours in names.items():
        if ours is not None and ours.split('.')[0] not in PARTS[parts]:
            names[theirs] = None
    return {ours: state_dict[key] for key, ours in names.items() if ours is not None}, names


def _translate(state_dict: Mapping[str, Any], modules: Tuple[str, ...]) -> Dict[str, Optional[str]]:
    """Give their key → our key, None for the fixed bins. Layers of other modules may be absent."""
    names: Dict[str, Optional[str]] = {}
    unknown: List[str] = []
    layers = set()
    for key in state_dict:
        match = _KEY.fullmatch(key)
        index, rest = (int(match['index']), match['rest']) if match else (-1, '')
        layers.add(index)
        names[key] = None
        if (index, rest) != (_HEAD, _FIXED_BINS):
            names[key] = _translate_one(index, rest)
            if names[key] is None:
                unknown.append(key)
    if unknown:
        raise LaunchError(
            'the checkpoint is not a YOLOv8 detection model (n, s, m, l, x) before `fuse()`: '
            f'{len(unknown)} of its {len(state_dict)} keys are unknown, such as {unknown[0]!r}.'
        )
    for index, name in _LAYERS.items():
        if index not in layers and name.split('.')[0] in modules:
            raise LaunchError(
                f'the checkpoint has no key model.{index}.* ({name}): give a whole YOLOv8 '
                "detection model, or convert 'backbone' alone."
            )
    return names


def _translate_one(index: int, rest: str) -> Optional[str]:
    """Give our name of one of their keys, None if there is none."""
    kinds = {_SPPF: _IN_SPPF, _HEAD: _IN_HEAD, **dict.fromkeys(_C2F, _IN_C2F)}
    for pattern, ours in kinds.get(index, _IN_CONV).items():
        match = re.fullmatch(pattern, rest)
        if match and index in _LAYERS:
            return f'{_LAYERS[index]}.{match.expand(ours)}'
    return None


def read_ultralytics_checkpoint(path: str) -> Dict[str, Tensor]:
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
        LaunchError: If it is a full Ultralytics checkpoint and ``ultralytics`` is not
            installed, or if the file holds no weights.
        LaunchError: If it is no checkpoint, or a full one that is not trusted.
    """
    try:
        content = load_from_local(path)
    except ModuleNotFoundError as error:
        raise LaunchError(
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
    raise LaunchError(f"{path!r} holds neither a state_dict nor a model ('ema', 'model').")


def convert_ultralytics_checkpoint(
    source: str, target: str, parts: str = 'model'
) -> Dict[str, Optional[str]]:
    """Convert a file of Ultralytics weights to a checkpoint for ``load_from`` or ``init_cfg``.

    Args:
        source (str): See :func:`read_ultralytics_checkpoint`.
        target (str): File to write, whole or not at all: ``dict(meta=..., state_dict=...)``.
        parts (str): 'model' or 'backbone'. Defaults to 'model'.

    Returns:
        dict[str, str | None]: The new key of each old one, None if it was left out.

    Raises:
        FileNotFoundError: If ``source`` does not exist.
        LaunchError: If ``source`` is no YOLOv8 detection model.
    """
    weights, names = map_ultralytics_state_dict(read_ultralytics_checkpoint(source), parts)
    save_weights(weights, dict(converted_from=osp.basename(source), parts=parts), target)
    return names
