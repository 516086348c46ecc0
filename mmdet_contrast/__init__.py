"""Region-contrastive learning and distillation for MMDetection.

Importing the package registers its modules in MMDetection's own registries, so a config needs only
``custom_imports = dict(imports=['mmdet_contrast'], allow_failed_imports=False)``.
"""

import sys

from .version import __version__

__all__ = ['__version__', 'config_path', 'own_data']


def _runs_doctor() -> bool:
    """Tell whether Python imports the package only to find ``mmdet_contrast.doctor``.

    ``python -m`` imports the package before the module, with ``sys.argv[0]`` set to ``'-m'``. The
    doctor has to run when what the package stands on does not import.
    """
    # Python before 3.10 has no `orig_argv`: any `-m` module of the package counts as the doctor.
    command = getattr(sys, 'orig_argv', [f'{__name__}.doctor'])
    return sys.argv[:1] == ['-m'] and f'{__name__}.doctor' in command


if not _runs_doctor():
    try:
        from . import compat, datasets, engine, evaluation, models, visualization  # noqa: F401
        from .utils.config import config_path
        from .utils.own_data import own_data
    except ImportError as error:
        raise ImportError(
            f'mmdet_contrast cannot register its modules ({type(error).__name__}: {error}); run '
            '`python -m mmdet_contrast.doctor` to see what is missing or broken and how to fix it.'
        ) from error
