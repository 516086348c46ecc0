"""Threads, seeds and the small generated data set that the tests share."""

import functools
import itertools
import os
import random
from pathlib import Path

# Before anything else is imported: a window system is not needed, and lightly must not ask the
# network for a newer version of itself.
os.environ.setdefault('MPLBACKEND', 'Agg')
os.environ['LIGHTLY_DID_VERSION_CHECK'] = 'True'
THREADS = int(os.environ.get('OMP_NUM_THREADS') or min(2, os.cpu_count() or 1))
# Processes that the tests start: threads of two of them spin against each other on few cores.
os.environ['OMP_NUM_THREADS'] = os.environ['MKL_NUM_THREADS'] = '1'

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from mmengine.config import utils as config_utils  # noqa: E402

torch.set_num_threads(THREADS)
# With TF32 a GPU rounds products to 10 bits, which no comparison with a reference survives.
torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
# MMEngine reads all hundred metafiles of MMDetection for every config that inherits from one of
# its configs: a third of a second each time.
config_utils.load = functools.lru_cache(maxsize=None)(config_utils.load)

TINY_CLASSES = 3
TINY_SIZE = 96
_numbers = itertools.count()


@pytest.fixture(autouse=True)
def _seeded():
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _no_leftovers():
    """Begin every test in MMDetection's scope and without the visualizers of earlier runners."""
    from mmengine.registry import DefaultScope
    from mmengine.visualization import Visualizer

    Visualizer._instance_dict.clear()
    DefaultScope.get_instance(f'test-{next(_numbers)}', scope_name='mmdet')


@pytest.fixture(scope='session')
def repo_root() -> Path:
    """The root of the source tree."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope='session')
def tiny_shapes(tmp_path_factory) -> Path:
    """The folder of a small generated data set: 12 train, 4 val and 4 test images."""
    from shapes import make_shapes

    root = tmp_path_factory.mktemp('shapes')
    make_shapes(
        str(root),
        num_images=dict(train=12, val=4, test=4),
        num_classes=TINY_CLASSES,
        image_size=TINY_SIZE,
        seed=0,
    )
    return root
