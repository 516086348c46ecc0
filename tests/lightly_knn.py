"""lightly's ``knn_predict``, from its file: the package around it wants torchvision."""

import importlib.util
from pathlib import Path

import pytest


def lightly_knn_predict():
    """Return the function, or skip the test where lightly is not installed."""
    package = importlib.util.find_spec('lightly')
    if package is None:
        pytest.skip('lightly is not installed')
    path = Path(package.origin).parent / 'utils' / 'benchmarking' / 'knn.py'
    if not path.is_file():
        pytest.skip(f'this lightly has no {path}')
    spec = importlib.util.spec_from_file_location('lightly_knn_file', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.knn_predict
