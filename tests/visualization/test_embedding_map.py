"""Projection and picture of embeddings, and the tool."""

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from knn_runs import tiny_config
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

from mmdet_contrast.utils.model import build_detector
from mmdet_contrast.visualization.embedding_map import (
    draw_embedding_map,
    project_embeddings,
    save_embedding_map,
)


def test_pca_equals_the_eigenvectors_of_the_covariance():
    x = torch.randn(50, 6) * torch.tensor([5.0, 3, 1, 1, 1, 1])
    points, shown = project_embeddings(x)
    unit = F.normalize(x.double(), dim=1).numpy()
    values, axes = np.linalg.eigh(np.cov(unit.T))
    assert shown == pytest.approx(values[-2:].sum() / values.sum())
    expected = (unit - unit.mean(axis=0)) @ axes[:, [-1, -2]]
    for ours, theirs in zip(points.T, expected.T):
        sign = np.sign((ours * theirs).sum())
        np.testing.assert_allclose(ours, sign * theirs, atol=1e-6)


def test_pca_of_one_dimension_and_of_a_collapse():
    points, _ = project_embeddings(torch.tensor([[1.0], [-2.0], [3.0]]))
    np.testing.assert_allclose(points[:, 1], 0, atol=1e-9)
    points, shown = project_embeddings(torch.ones(4, 8))
    assert np.isfinite(points).all() and np.isfinite(shown)


def colours_in(path):
    return {tuple(x) for x in cv2.imread(str(path))[..., ::-1].reshape(-1, 3)}


def test_each_class_has_its_colour_and_name(tmp_path, monkeypatch):
    legends, points = [], []
    legend, scatter = Axes.legend, Axes.scatter
    monkeypatch.setattr(Axes, 'legend', lambda *a, **k: legends.append(legend(*a, **k)))
    monkeypatch.setattr(Axes, 'scatter', lambda *a, **k: points.append(scatter(*a, **k)))
    # '_' hides an entry in matplotlib, '$' begins a formula; class b does not occur
    classes = ['_background', 'b', '$%$', 'x' * 200]
    out = tmp_path / 'a.png'
    draw_embedding_map(np.eye(4)[:, :2], np.array([0, 2, 3, 2]), classes, str(out), 'title')
    names = [text.get_text() for text in legends[0].get_texts()]
    assert names == [r'2 \$%\$', '1 _background', f'1 {"x" * 31}…']
    for part, label in zip(points, (2, 0, 3)):
        np.testing.assert_allclose(part.get_facecolor()[0, :3], to_rgb(f'C{label}'))
    assert cv2.imread(str(out)).shape[0] > 400


def test_the_smallest_of_many_classes_are_grey(tmp_path, monkeypatch):
    legends, legend = [], Axes.legend
    monkeypatch.setattr(Axes, 'legend', lambda *a, **k: legends.append(legend(*a, **k)))
    labels = np.concatenate([np.arange(23), np.arange(20)])
    classes = [f'c{number}' for number in range(23)]
    draw_embedding_map(np.random.rand(43, 2), labels, classes, str(tmp_path / 'a.png'))
    names = [text.get_text() for text in legends[0].get_texts()]
    assert names == [*(f'2 c{number}' for number in range(20)), '3 other classes']


@pytest.fixture(scope='module')
def detector(tiny_shapes, tmp_path_factory):
    folder = tmp_path_factory.mktemp('map')
    cfg = tiny_config(tiny_shapes, folder / 'run', [], max_epochs=1)
    cfg.test_dataloader = cfg.val_dataloader
    cfg.dump(str(folder / 'tiny.py'))
    torch.save(dict(state_dict=build_detector(cfg).state_dict()), folder / 'tiny.pth')
    return str(folder / 'tiny.py'), str(folder / 'tiny.pth')


def test_tool_draws_and_says_the_figures(detector, tmp_path, call):
    out = tmp_path / 'deep' / 'map.png'
    options = ['--level', '1', '--device', 'cpu']
    text = call('embedding_map', *detector, '--out', out, *options)
    assert 'top1 ' in text and f'map in {out}' in text
    assert cv2.imread(str(out)).shape[0] > 400
    (tmp_path / 'file').touch()
    for checkpoint, place, message in (
        ('absent.pth', out, 'absent.pth'),
        (detector[1], tmp_path / 'file' / 'a.png', 'file'),
    ):
        with pytest.raises(SystemExit, match=f'^embedding_map.py: error: .*{message}') as caught:
            call('embedding_map', detector[0], checkpoint, '--out', place, '--device', 'cpu')
        assert '\n' not in str(caught.value)


def test_figures_are_those_of_all_boxes(detector, tmp_path):
    values = save_embedding_map(*detector, str(tmp_path / 'a.png'), device='cpu')
    few = save_embedding_map(*detector, str(tmp_path / 'b.png'), max_samples=2, device='cpu')
    assert values['bank'] > values['queries'] > few['queries'] > 0
