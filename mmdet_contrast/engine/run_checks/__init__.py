"""What ``RunCheckHook`` checks.

A check raises a ``LaunchError`` where it fails; ``where`` is the place in the config that it names.
"""

from .classes import check_classes, check_dataset, check_heads, check_linear
from .data_files import completed_data
from .run_config import check_run_config

__all__ = [
    'check_classes',
    'check_dataset',
    'check_heads',
    'check_linear',
    'check_run_config',
    'completed_data',
]
