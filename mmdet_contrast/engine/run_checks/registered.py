"""Names of types in a config."""

import difflib
from typing import Any, Iterable

from mmengine.registry import Registry


def find_type(registry: Registry, kind: Any) -> Any:
    """Find what ``type`` of a config's part stands for, as MMEngine does when it builds the part.

    Args:
        registry (Registry): One of ``mmengine.registry``.
        kind (Any): A registered name, or the class itself.

    Returns:
        Any: The class; None if the name is not registered.
    """
    if not isinstance(kind, str):
        return kind
    with registry.switch_scope_and_registry(None) as own:
        return own.get(kind)


def suggest(wrong: str, known: Iterable[str]) -> str:
    """Ask whether a known name was meant, at the end of a sentence."""
    names = {name.lower(): name for name in known}
    near = difflib.get_close_matches(wrong.split('.')[-1].lower(), names, n=1)
    return f': did you mean {names[near[0]]!r}?' if near else '.'
