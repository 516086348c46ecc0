"""Converting a file of Ultralytics weights to a checkpoint of this package."""

import os.path as osp
from typing import Any, Dict, Mapping, Optional

import torch

from .checkpoint_keys import is_state_dict, load_checkpoint_file, save_weights
from .ultralytics import map_ultralytics_state_dict
from .ultralytics_report import UltralyticsReport

__all__ = ['convert_ultralytics_checkpoint', 'read_ultralytics_checkpoint']


def read_ultralytics_checkpoint(path: str) -> Dict[str, torch.Tensor]:
    """Read the weights of an Ultralytics model as a plain state_dict in float32.

    Args:
        path (str): Local file with a plain state_dict (or one under ``state_dict`` or ``model``),
            or a full Ultralytics checkpoint, which holds a pickled model under ``ema`` or ``model``
            and can be read only where the package ``ultralytics`` is installed. The averaged
            weights (``ema``) are preferred, as Ultralytics does. A pickled model runs code when it
            is read: give only files whose origin you trust.

    Returns:
        dict[str, Tensor]: The weights under Ultralytics' names; those in half precision as float32.

    Raises:
        FileNotFoundError: If there is no such file.
        ImportError: If it is a full Ultralytics checkpoint and ``ultralytics`` is not installed.
        ValueError: If the file holds neither.
    """
    try:
        content = load_checkpoint_file(path)
    except ImportError as error:
        if (error.name or '').split('.')[0] != 'ultralytics':
            raise ImportError(
                f'{path!r} is a pickled object of another package and cannot be read here ({error})'
                ': save the plain state_dict of the model where that package is installed.'
            ) from error
        raise ImportError(
            f'{path!r} is a full Ultralytics checkpoint (a pickled model), which can be read only '
            'where the package `ultralytics` is installed: install it in an environment of its own '
            "and save there the plain weights with torch.save(YOLO('<file>').model.state_dict(), "
            "'<plain file>'), then convert that file."
        ) from error
    weights = _find_weights(content)
    if weights is None:
        held = f'keys {", ".join(map(str, content))}' if isinstance(content, Mapping) else 'no dict'
        raise ValueError(
            f"{path!r} holds no weights ({held}): give a plain state_dict, or Ultralytics' own "
            "checkpoint with a model under 'ema' or 'model'."
        )
    return {
        key: value.float() if value.is_floating_point() else value for key, value in weights.items()
    }


def convert_ultralytics_checkpoint(
    source: str, target: str, parts: str = 'model', model: Optional[Any] = None
) -> UltralyticsReport:
    """Convert a file of Ultralytics weights to a checkpoint for ``load_from`` or ``init_cfg``.

    Args:
        source (str): See :func:`read_ultralytics_checkpoint`.
        target (str): File to write, whole or not at all: ``dict(meta=..., state_dict=...)``.
        parts (str): 'model', 'backbone' or 'backbone+neck'. Defaults to 'model'.
        model (nn.Module | Mapping[str, Tensor], optional): The model to compare shapes with, see
            :func:`~mmdet_contrast.utils.ultralytics.map_ultralytics_state_dict`.

    Returns:
        UltralyticsReport: What was mapped, skipped, mismatched and left out.

    Raises:
        FileNotFoundError: If ``source`` does not exist.
        ImportError: If ``source`` needs the package ``ultralytics`` and it is not installed.
        ValueError: If ``source`` is no YOLOv8 detection model or does not fit ``model``.
    """
    weights, report = map_ultralytics_state_dict(read_ultralytics_checkpoint(source), parts, model)
    meta = dict(converted_from=osp.basename(source), parts=parts, size=report.size)
    save_weights(weights, meta, target)
    return report


def _find_weights(content: Any) -> Optional[Mapping[str, torch.Tensor]]:
    """Find the state_dict in what a file holds, None if there is none."""
    candidates = [content]
    if isinstance(content, Mapping):
        candidates += [content.get(key) for key in ('ema', 'model', 'state_dict')]
    for candidate in candidates:
        if isinstance(candidate, torch.nn.Module):
            return candidate.state_dict()
        if is_state_dict(candidate):
            return candidate
    return None
