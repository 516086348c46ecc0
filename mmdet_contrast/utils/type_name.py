"""The name of what a config builds."""

from typing import Any

__all__ = ['type_name']


def type_name(kind: Any) -> str:
    """Name the ``type`` of a config's part without its scope or module.

    Args:
        kind (Any): A registered name, with or without a scope, or the class itself, as MMEngine's
            new style of configs has it.

    Returns:
        str: The name of the class.

    Example:
        >>> type_name('mmdet.PackDetInputs')
        'PackDetInputs'
    """
    return getattr(kind, '__name__', str(kind)).split('.')[-1]
