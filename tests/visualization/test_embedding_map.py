"""Projection and picture of embeddings, and the tool."""

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from knn_runs import tiny_config
from matplotlib.axes import Axes

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


def test_tsne_separates_clusters():
    pytest.importorskip('sklearn', reason='t-SNE is optional')
    x = torch.randn(40, 8) * 0.1
    x[:20, 0] += 5
    x[20:, 1] += 5
    points, shown = project_embeddings(x, 'tsne')
    assert shown is None and points.shape == (40, 2)
    gap = np.linalg.norm(points[:20].mean(axis=0) - points[20:].mean(axis=0))
    assert gap > points[:20].std() and gap > points[20:].std()


def colours_in(path):
    return {tuple(x) for x in cv2.imread(str(path))[..., ::-1].reshape(-1, 3)}


def test_each_class_has_its_colour(tmp_path):
    points = np.array([[0.0, 0], [1, 0], [0, 1], [1, 1]])
    out = draw_embedding_map(
        points, [0, 2, 2, 0], ['a', 'b', 'c'], str(tmp_path / 'new' / 'a.png'), 'title', 'note'
    )
    # matplotlib's C0 and C2, in the legend without transparency; class b does not occur
    assert {(31, 119, 180), (44, 160, 44)} <= colours_in(out)
    assert (255, 127, 14) not in colours_in(out)


def test_any_name_stands_in_the_legend(tmp_path, monkeypatch):
    legends = []
    stock = Axes.legend
    monkeypatch.setattr(
        Axes, 'legend', lambda *args, **options: (
            legends.append(stock(*args, **options)) or legends[-1]
        )
    )  # fmt: skip
    # '_' hides an entry in matplotlib, '$' begins a formula
    classes = ['_background', '$%$', 'x' * 200]
    out = draw_embedding_map(np.eye(3)[:, :2], [0, 1, 2], classes, str(tmp_path / 'a.png'))
    (legend,) = legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ['_background (1)', r'\$%\$ (1)', f'{"x" * 31}… (1)']
    assert {(31, 119, 180), (255, 127, 14), (44, 160, 44)} <= colours_in(out)


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
    options = ['--level', '1', '--max-points', '5', '--device', 'cpu']
    text = call('embedding_map', *detector, '--out', out, *options)
    assert 'top1 ' in text and f'map in {out}' in text
    assert cv2.imread(str(out)).shape[0] > 400
    (tmp_path / 'file').touch()
    for checkpoint, place, message in (
        ('absent.pth', out, 'absent.pth'),
        (detector[1], tmp_path / 'file' / 'a.png', 'cannot be written to .*: give another folder'),
    ):
        with pytest.raises(SystemExit, match=f'^embedding_map.py: error: .*{message}') as caught:
            call('embedding_map', detector[0], checkpoint, '--out', place, '--device', 'cpu')
        assert '\n' not in str(caught.value)


def test_figures_do_not_depend_on_what_is_drawn(detector, tmp_path):
    first = save_embedding_map(*detector, str(tmp_path / 'a.png'), max_points=3, device='cpu')
    second = save_embedding_map(*detector, str(tmp_path / 'b.png'), batch_size=1, device='cpu')
    assert first == pytest.approx(second, rel=1e-4)
    assert first['bank'] > first['queries'] > 3
