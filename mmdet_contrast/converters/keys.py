"""Weights in checkpoint files: reading, writing, and renaming or selecting keys by prefix."""

from collections import Counter
from typing import Any, Collection, Dict, Iterable, Mapping, Optional, Sequence, Tuple

import torch

from mmdet_contrast.utils.config import LaunchError
from mmdet_contrast.utils.files import replacing
from mmdet_contrast.utils.safe_loading import load_from_local

_SHOWN = 8


def is_state_dict(value: Any) -> bool:
    """Tell whether a value is a plain state_dict: a non-empty mapping from names to tensors."""
    return (
        isinstance(value, Mapping)
        and len(value) > 0
        and all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in value.items())
    )


def save_weights(state_dict: Mapping[str, torch.Tensor], meta: Dict[str, Any], path: str) -> None:
    """Write ``dict(meta=..., state_dict=...)`` so that the file is whole or absent.

    Args:
        state_dict (Mapping[str, Tensor]): The weights.
        meta (dict): Plain values that say where the weights come from.
        path (str): File to write; one that exists is replaced. Missing folders are made.
    """
    with replacing(path) as temporary:
        torch.save(dict(meta=meta, state_dict=dict(state_dict)), temporary)


def rename_keys(
    state_dict: Mapping[str, Any],
    strip: Sequence[str] = (),
    rename: Optional[Mapping[str, str]] = None,
    keep: Sequence[str] = (),
) -> Tuple[Dict[str, Any], Dict[str, Optional[str]]]:
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
        tuple[dict, dict[str, str | None]]: The new state_dict in the old one's order, and the new
        key of each old one, None if it was dropped.

    Raises:
        LaunchError: If a prefix covers no key, or if two keys would get the same name.

    Example:
        >>> weights = {'module.net.w': 1, 'module.ema.w': 2}
        >>> rename_keys(weights, ['module.'], {'net': 'backbone'}, keep=['backbone'])[0]
        {'backbone.w': 1}
    """
    rename = rename or {}
    names = {key: key for key in state_dict}
    for prefix in strip:
        _require_match(prefix, names.values(), 'strip')
        names = {old: _replace(new, prefix, '') for old, new in names.items()}
    for prefix in rename:
        _require_match(prefix, names.values(), 'map')
    for old, name in names.items():
        covering = [prefix for prefix in rename if _covers(prefix, name)]
        if covering:
            longest = max(covering, key=len)
            names[old] = _replace(name, longest, rename[longest])
    for prefix in keep:
        _require_match(prefix, names.values(), 'keep')

    renamed: Dict[str, Any] = {}
    moved: Dict[str, Optional[str]] = dict.fromkeys(names)
    for old, new in names.items():
        if keep and not any(_covers(prefix, new) for prefix in keep):
            continue
        if new in renamed:
            raise LaunchError(
                f'key {old!r} would become {new!r}, as another one does: map one of them to '
                'another prefix, or keep one of them only.'
            )
        renamed[new], moved[old] = state_dict[old], new
    return renamed, moved


def rename_checkpoint(
    source: str,
    target: str,
    strip: Sequence[str] = (),
    rename: Optional[Mapping[str, str]] = None,
    keep: Sequence[str] = (),
) -> Dict[str, Optional[str]]:
    """Apply :func:`rename_keys` to a file.

    The weights and ``meta`` are written; an optimizer's state and the like, which would no longer
    fit, are left out.

    Args:
        source (str): File with a plain state_dict, or with one under ``state_dict``.
        target (str): File to write, whole or not at all.
        strip (Sequence[str]): See :func:`rename_keys`.
        rename (Mapping[str, str], optional): See :func:`rename_keys`.
        keep (Sequence[str]): See :func:`rename_keys`.

    Returns:
        dict[str, str | None]: The new key of each old one, None if it was dropped.

    Raises:
        FileNotFoundError: If ``source`` does not exist.
        LaunchError: If ``source`` holds no state_dict, and as :func:`rename_keys` does.
    """
    weights, meta = _read_weights(source)
    renamed, moved = rename_keys(weights, strip, rename, keep)
    save_weights(renamed, meta, target)
    return moved


def _read_weights(source: str) -> Tuple[Mapping[str, Any], Dict[str, Any]]:
    """Read the weights of a file, and its ``meta``, empty without one."""
    content = load_from_local(source)
    if is_state_dict(content):
        return content, {}
    if isinstance(content, Mapping) and is_state_dict(content.get('state_dict')):
        return content['state_dict'], content.get('meta') or {}
    raise LaunchError(f"{source!r} holds no state_dict, nor one under the key 'state_dict'.")


def _covers(prefix: str, key: str) -> bool:
    """Tell whether a key is the prefix or lies below it; the empty prefix covers every key."""
    prefix = prefix.rstrip('.')
    return not prefix or key == prefix or key.startswith(f'{prefix}.')


def _replace(key: str, old: str, new: str) -> str:
    """Put ``new`` in the place of the prefix ``old``, if the key has it."""
    if not _covers(old, key):
        return key
    rest = key[len(old.rstrip('.')) :].lstrip('.')
    return '.'.join(part for part in (new.rstrip('.'), rest) if part)


def _require_match(prefix: str, keys: Collection[str], option: str) -> None:
    """Refuse a prefix that covers no key: a misspelt one would change nothing."""
    if not any(_covers(prefix, key) for key in keys):
        raise LaunchError(
            f'{option}: prefix {prefix!r} matches no key; they begin with {_prefixes(keys)}.'
        )


def _prefixes(keys: Iterable[str]) -> str:
    counts = list(Counter(key.split('.')[0] for key in keys).items())
    return ', '.join(f'{name} ({n})' for name, n in counts[:_SHOWN]) + ' …' * (len(counts) > _SHOWN)
