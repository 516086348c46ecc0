"""Weights in checkpoint files: reading, writing, and renaming or selecting keys by prefix."""

import os
from collections import Counter
from pathlib import Path
from typing import (
    Any,
    Collection,
    Dict,
    Iterable,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
)

import torch

from mmdet_contrast.utils.files import PathLike
from mmdet_contrast.utils.safe_loading import load_checkpoint

from .coco import ConversionError


def is_state_dict(value: Any) -> bool:
    """Tell whether a value is a plain state_dict: a non-empty mapping from names to tensors."""
    return (
        isinstance(value, Mapping)
        and len(value) > 0
        and all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in value.items())
    )


def read_weights(source: str) -> Tuple[Mapping[str, Any], Dict[str, Any], List[str]]:
    """Read the weights of a file.

    Args:
        source (str): File with a plain state_dict, or with one under ``state_dict``.

    Returns:
        tuple[Mapping[str, Tensor], dict, list[str]]: The weights, ``meta`` (empty without one),
        and the names of the file's other entries.

    Raises:
        FileNotFoundError: If ``source`` does not exist.
        LaunchError: If ``source`` is no checkpoint, is not safe to load, or holds no state_dict.
    """
    content = load_checkpoint(source)
    if is_state_dict(content):
        return content, {}, []
    if isinstance(content, Mapping) and is_state_dict(content.get('state_dict')):
        others = [str(key) for key in content if key not in ('meta', 'state_dict')]
        return content['state_dict'], content.get('meta') or {}, others
    raise ConversionError(f"{source!r} holds no state_dict, nor one under the key 'state_dict'.")


def save_weights(
    state_dict: Mapping[str, torch.Tensor], meta: Dict[str, Any], path: PathLike
) -> None:
    """Write ``dict(meta=..., state_dict=...)`` so that the file is whole or absent.

    Args:
        state_dict (Mapping[str, Tensor]): The weights.
        meta (dict): Plain values that say where the weights come from.
        path (str | PathLike): File to write; one that exists is replaced. Missing folders are made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
    try:
        torch.save(dict(meta=meta, state_dict=dict(state_dict)), unfinished)
        os.replace(unfinished, path)
    finally:
        if unfinished.exists():
            unfinished.unlink()


def describe_prefixes(keys: Iterable[str], most: int = 8) -> str:
    """Sum up keys by the part before their first dot.

    Args:
        keys (Iterable[str]): Keys of a state_dict.
        most (int): Prefixes to name at most. Defaults to 8.

    Returns:
        str: For example ``'backbone (3), neck (1)'``.

    Example:
        >>> describe_prefixes(['backbone.a', 'backbone.b', 'neck.c'])
        'backbone (2), neck (1)'
    """
    counts = list(Counter(key.split('.')[0] for key in keys).items())
    return ', '.join(f'{name} ({n})' for name, n in counts[:most]) + ' …' * (len(counts) > most)


class RenameReport(NamedTuple):
    """What :func:`rename_keys` did.

    Attributes:
        renamed (Dict[str, str]): Old key → new key, for the keys that changed.
        unchanged (List[str]): Keys that were kept as they were.
        dropped (List[str]): Keys, as they were given, that no ``keep`` prefix covers.
        left_out (List[str]): Entries of the file beside the weights that were not written.
    """

    renamed: Dict[str, str]
    unchanged: List[str]
    dropped: List[str]
    left_out: List[str] = []

    def __str__(self) -> str:
        lines = [
            f'{len(self.renamed)} keys renamed, {len(self.unchanged)} unchanged, '
            f'{len(self.dropped)} dropped'
        ]
        lines += [f'  {old} -> {new}' for old, new in self.renamed.items()]
        lines += [f'  dropped {key}' for key in self.dropped]
        if self.left_out:
            lines.append(f'entries of the file that were left out: {", ".join(self.left_out)}')
        return '\n'.join(lines)


def rename_keys(
    state_dict: Mapping[str, Any],
    strip: Sequence[str] = (),
    rename: Optional[Mapping[str, str]] = None,
    keep: Sequence[str] = (),
) -> Tuple[Dict[str, Any], RenameReport]:
    """Strip, replace and select prefixes of a state_dict's keys, in this order.

    A prefix ends at a dot: ``'module'`` and ``'module.'`` both cover ``module.conv.weight``, and
    neither covers ``module_list.0.weight``.

    Args:
        state_dict (Mapping[str, Any]): The weights; not changed.
        strip (Sequence[str]): Prefixes to take off, one after the other. Defaults to none.
        rename (Mapping[str, str], optional): Old prefix → new prefix. A key is renamed once, by the
            longest old prefix that covers it, so two prefixes can be swapped.
        keep (Sequence[str]): Prefixes, as they are after renaming, of the keys to keep; the others
            are dropped. Defaults to keeping all.

    Returns:
        tuple[dict, RenameReport]: The new state_dict in the old one's order, and what was done.

    Raises:
        ConversionError: If a prefix covers no key, or if two keys would get the same name.

    Example:
        >>> weights = {'module.net.w': 1, 'module.ema.w': 2}
        >>> rename_keys(weights, ['module.'], {'net': 'backbone'}, keep=['backbone'])[0]
        {'backbone.w': 1}
    """
    names = {key: key for key in state_dict}
    for prefix in strip:
        _require_match(prefix, names.values(), 'strip')
        names = {old: _replace(new, prefix, '') for old, new in names.items()}
    rename = dict(rename or {})
    for prefix in rename:
        _require_match(prefix, names.values(), 'map')
    longest_first = sorted(rename, key=len, reverse=True)
    for old, new in names.items():
        prefix = next((p for p in longest_first if _covers(p, new)), None)
        if prefix is not None:
            names[old] = _replace(new, prefix, rename[prefix])
    for prefix in keep:
        _require_match(prefix, names.values(), 'keep')

    origin: Dict[str, str] = {}
    dropped: List[str] = []
    for old, new in names.items():
        if keep and not any(_covers(prefix, new) for prefix in keep):
            dropped.append(old)
        elif origin.setdefault(new, old) != old:
            raise ConversionError(
                f'keys {origin[new]!r} and {old!r} would both become {new!r}: map one of them to '
                'another prefix, or keep one of them only.'
            )
    changed = {old: new for new, old in origin.items() if old != new}
    unchanged = [old for new, old in origin.items() if old == new]
    renamed = {new: state_dict[old] for new, old in origin.items()}
    return renamed, RenameReport(changed, unchanged, dropped)


def rename_checkpoint(
    source: str,
    target: str,
    strip: Sequence[str] = (),
    rename: Optional[Mapping[str, str]] = None,
    keep: Sequence[str] = (),
) -> RenameReport:
    """Apply :func:`rename_keys` to a file.

    The weights and ``meta`` are written; an optimizer's state and the like, which would no longer
    fit, are left out and named in the report.

    Args:
        source (str): File with a plain state_dict, or with one under ``state_dict``.
        target (str): File to write, whole or not at all.
        strip (Sequence[str]): See :func:`rename_keys`.
        rename (Mapping[str, str], optional): See :func:`rename_keys`.
        keep (Sequence[str]): See :func:`rename_keys`.

    Returns:
        RenameReport: What was done.

    Raises:
        FileNotFoundError: If ``source`` does not exist.
        ConversionError: If ``source`` holds no state_dict, and as :func:`rename_keys` does.
    """
    weights, meta, left_out = read_weights(source)
    renamed, report = rename_keys(weights, strip, rename, keep)
    save_weights(renamed, meta, target)
    return report._replace(left_out=left_out)


def _covers(prefix: str, key: str) -> bool:
    """Tell whether a key is the prefix or lies below it; the empty prefix covers every key."""
    prefix = prefix.rstrip('.')
    return not prefix or key == prefix or key.startswith(f'{prefix}.')


def _replace(key: str, old: str, new: str) -> str:
    """Put ``new`` in the place of the prefix ``old``, if the key has it."""
    if not _covers(old, key):
        return key
    old = old.rstrip('.')
    rest = key[len(old) :].lstrip('.') if old else key
    return '.'.join(part for part in (new.rstrip('.'), rest) if part)


def _require_match(prefix: str, keys: Collection[str], option: str) -> None:
    """Refuse a prefix that covers no key: a misspelt one would change nothing."""
    if not any(_covers(prefix, key) for key in keys):
        raise ConversionError(
            f'{option}: prefix {prefix!r} matches no key; they begin with '
            f'{describe_prefixes(keys)}.'
        )
