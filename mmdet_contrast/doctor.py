"""``python -m mmdet_contrast.doctor``: see :mod:`mmdet_contrast.collect_env`."""

import sys

from .collect_env import main

if __name__ == '__main__':
    sys.exit(main())
