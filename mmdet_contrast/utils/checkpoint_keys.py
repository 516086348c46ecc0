"""Reading and writing of the weights in a checkpoint file, and how their keys are summed up."""

import os
import os.path as osp
import pickle
import tempfile
from collections import Counter
from typing import Any, Dict, Iterable, Mapping, Tuple

import torch

from mmdet_contrast.compat import load_from_local

__all__ = ['describe_prefixes', 'is_state_dict', 'load_checkpoint_file', 'save_weights']


def is_state_dict(value: Any) -> bool:
    """Tell whether a value is a plain state_dict: a non-empty mapping from names to tensors.

    Args:
        value (Any): What a file or one of its entries holds.

    Returns:
        bool: True if every key is a string and every value a tensor.
    """
    return (
        isinstance(value, Mapping)
        and len(value) > 0
        and all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in value.items())
    )


def load_checkpoint_file(path: str) -> Any:
    """Load a local file that ``torch.save`` wrote, on the CPU.

    A file of tensors and plain values is read without running any code. Any other one (a training
    checkpoint of MMEngine, a pickled model) is trusted: give only files whose origin you trust.

    Args:
        path (str): A local path; ``~`` is expanded.

    Returns:
        Any: What the file holds.

    Raises:
        FileNotFoundError: If there is no such file.
        ImportError: If the file holds objects of a package that is not installed.
        ValueError: If the file is not one that ``torch.save`` wrote.
    """
    path = osp.expanduser(path)
    if not osp.isfile(path):
        raise FileNotFoundError(f'no checkpoint at {path!r}: the path is not an existing file.')
    try:
        try:
            return torch.load(path, map_location='cpu', weights_only=True)
        except pickle.UnpicklingError:
            return load_from_local(path, map_location='cpu')
    except ImportError:
        raise
    except Exception as error:  # what torch raises on a foreign file differs between its versions
        reason = (str(error).strip().splitlines() or [''])[0]
        raise ValueError(
            f'{path!r} is not a checkpoint that torch can read ({type(error).__name__}: {reason}): '
            'give a file written by torch.save.'
        ) from error


def save_weights(state_dict: Mapping[str, torch.Tensor], meta: Dict[str, Any], path: str) -> None:
    """Write ``dict(meta=..., state_dict=...)`` so that the file is whole or absent.

    Args:
        state_dict (Mapping[str, Tensor]): The weights.
        meta (dict): Plain values that say where the weights come from.
        path (str): File to write; one that exists is replaced. Missing folders are made.

    Raises:
        OSError: If the file cannot be written; nothing is left behind then.
    """
    folder = osp.dirname(osp.abspath(osp.expanduser(path)))
    os.makedirs(folder, exist_ok=True)
    handle, unfinished = tempfile.mkstemp(dir=folder, suffix='.tmp')
    os.close(handle)
    try:
        torch.save(dict(meta=meta, state_dict=dict(state_dict)), unfinished)
        # mkstemp makes the file readable by its owner alone; a checkpoint follows the umask.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(unfinished, 0o666 & ~umask)
        os.replace(unfinished, osp.expanduser(path))
    except BaseException:
        os.unlink(unfinished)
        raise


def describe_prefixes(keys: Iterable[str], most: int = 8) -> str:
    """Sum up keys by the part before their first dot.

    Args:
        keys (Iterable[str]): Keys of a state_dict.
        most (int): Prefixes to name at most. Defaults to 8.

    Returns:
        str: For example ``'backbone (3 keys), neck (1 key)'``.

    Example:
        >>> describe_prefixes(['backbone.a', 'backbone.b', 'neck.c'])
        'backbone (2 keys), neck (1 key)'
    """
    counts: Tuple[Tuple[str, int], ...] = tuple(Counter(k.split('.')[0] for k in keys).items())
    named = [f'{name} ({n} key{"s" if n > 1 else ""})' for name, n in counts[:most]]
    if len(counts) > most:
        named.append(f'and {len(counts) - most} more')
    return ', '.join(named) or 'no keys'
