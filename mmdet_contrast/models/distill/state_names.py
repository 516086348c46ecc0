"""Names of a wrapper's weights: those of its student."""

from typing import Any

from torch import nn


def leave_student(module: nn.Module, state: dict, prefix: str, metadata: dict) -> None:
    """Name the student's weights as in its plain config; a ``state_dict`` hook.

    Args:
        module (nn.Module): The wrapper.
        state (dict): Its weights by name, changed in place.
        prefix (str): What the wrapper's names start with.
        metadata (dict): Not used.
    """
    inner = f'{prefix}student.'
    for key in [key for key in state if key.startswith(inner)]:
        state[prefix + key[len(inner) :]] = state.pop(key)


def enter_student(state: dict, prefix: str, *_: Any) -> None:
    """Name a plain checkpoint's weights as the wrapper has them; before ``load_state_dict``.

    Args:
        state (dict): Weights by name, changed in place.
        prefix (str): What the wrapper's names start with.
    """
    for key in [key for key in state if key.startswith(prefix)]:
        state[f'{prefix}student.{key[len(prefix) :]}'] = state.pop(key)
