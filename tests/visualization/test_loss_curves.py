"""Reading of MMEngine's logs, and the curves."""

import json

import cv2
import numpy as np
import pytest

from mmdet_contrast.utils.config import LaunchError
from mmdet_contrast.visualization.loss_curves import moving_average, plot_losses, read_run, series


def write(folder, stamp, lines):
    path = folder / stamp / 'vis_data' / 'scalars.json'
    path.parent.mkdir(parents=True)
    path.write_text('\n'.join(json.dumps(line) for line in lines) + '\n')
    return path


def train_line(step, loss, epoch=1):
    return dict(loss=loss, loss_contrast_p3=loss / 2, epoch=epoch, iter=step, step=step)


def val_line(epoch, ap):
    return {'coco/bbox_mAP': ap, 'coco/bbox_mAP_50': 2 * ap, 'step': epoch}


@pytest.fixture
def work_dir(tmp_path):
    folder = tmp_path / 'a [run]'
    lines = [train_line(5, 4.0), train_line(10, 3.0), val_line(1, 0.1)]
    lines += [train_line(15, 2.0, 2), train_line(20, 1.0, 2), val_line(2, 0.2)]
    write(folder, '20260101_000000', lines)
    return folder


def test_validation_is_placed_at_its_iteration(work_dir):
    run = read_run(str(work_dir))
    assert run.name == 'a [run]'
    np.testing.assert_array_equal(series(run.train, 'loss'), [[5, 10, 15, 20], [4, 3, 2, 1]])
    np.testing.assert_array_equal(series(run.val, 'coco/bbox_mAP'), [[10, 20], [0.1, 0.2]])
    assert run.keys() == ['loss', 'loss_contrast_p3', 'coco/bbox_mAP', 'coco/bbox_mAP_50']


def test_a_resumed_run_replaces_what_it_repeats(work_dir):
    lines = [train_line(15, 9.0, 2), train_line(20, 8.0, 2), val_line(2, 0.5)]
    write(work_dir, '20260102_000000', lines)
    run = read_run(str(work_dir))
    np.testing.assert_array_equal(series(run.train, 'loss'), [[5, 10, 15, 20], [4, 3, 9, 8]])
    np.testing.assert_array_equal(series(run.val, 'coco/bbox_mAP'), [[10, 20], [0.1, 0.5]])


def test_half_a_line_at_the_end_is_left_behind_by_a_killed_process(work_dir):
    path = work_dir / '20260101_000000' / 'vis_data' / 'scalars.json'
    with path.open('a') as stream:
        stream.write('{"loss": 1.0, "st')
    assert len(read_run(str(work_dir)).train) == 4


def test_skipped_epochs(work_dir):
    run = read_run(str(work_dir), skip_epochs=1)
    np.testing.assert_array_equal(series(run.train, 'loss')[0], [15, 20])
    np.testing.assert_array_equal(series(run.val, 'coco/bbox_mAP')[0], [20])
    with pytest.raises(LaunchError, match='no training record in .* after 2 epochs'):
        read_run(str(work_dir), skip_epochs=2)


def test_epochs_of_a_run_that_counts_iterations_are_not_skipped(tmp_path):
    lines = [dict(loss=1.0, iter=step, step=step) for step in (5, 10)]
    write(tmp_path, '20260101_000000', lines)
    with pytest.raises(LaunchError, match='counts iterations, not epochs'):
        read_run(str(tmp_path), skip_epochs=1)


def test_what_is_no_log_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no log under '.*nowhere'"):
        read_run(str(tmp_path / 'nowhere'))
    (tmp_path / 'scalars.json').write_text('not JSON\nat all\n')
    with pytest.raises(json.JSONDecodeError):
        read_run(str(tmp_path))
    write(tmp_path / 'empty', '20260101_000000', [val_line(0, 0.1)])
    with pytest.raises(LaunchError, match='no training record'):
        read_run(str(tmp_path / 'empty'))


@pytest.mark.parametrize('window', [1, 2, 3, 10])
def test_moving_average_is_a_mean_of_the_last_values(window):
    values = np.random.default_rng(0).normal(size=7)
    expected = [values[max(0, i - window + 1) : i + 1].mean() for i in range(7)]
    np.testing.assert_allclose(moving_average(values, window), expected, atol=1e-12)


@pytest.mark.parametrize('window', [1, 2])
def test_moving_average_goes_on_after_a_value_that_is_not_finite(window):
    averages = moving_average(np.array([1.0, np.nan, 3.0, np.inf, 5.0, 7.0]), window)
    last = 7.0 if window == 1 else 6.0
    np.testing.assert_equal(averages, [1.0, np.nan, 3.0, np.inf, 5.0, last])


def test_picture_has_a_panel_for_each_kind(work_dir, tmp_path):
    three = cv2.imread(plot_losses([str(work_dir)], str(tmp_path / 'out' / 'three.png')))
    one = cv2.imread(plot_losses([str(work_dir)], str(tmp_path / 'one.png'), keys=['loss']))
    assert three.shape[1] == 3 * one.shape[1] and three.shape[0] == one.shape[0]
    assert one.std() > 1


@pytest.fixture
def curves(monkeypatch):
    """Every curve that is drawn, by panel: (label, x, y, line style, colour)."""
    from matplotlib.axes import Axes

    drawn = []
    plot = Axes.plot

    def remember(axis, *args, **kwargs):
        (line,) = plot(axis, *args, **kwargs)
        if not line.get_label().startswith('_'):
            drawn.append((axis, line))
        return [line]

    def by_panel():
        panels = {}
        for axis, line in drawn:
            panels.setdefault(axis.get_title(), []).append(line)
        return panels

    monkeypatch.setattr(Axes, 'plot', remember)
    return by_panel


def test_validation_loss_is_a_curve_beside_that_of_training(tmp_path, curves):
    lines = [train_line(5, 4.0), dict(loss=5.0, step=1), train_line(10, 2.0, 2)]
    lines += [dict(loss=3.0, step=2)]
    write(tmp_path / 'run', '20260101_000000', lines)
    plot_losses([str(tmp_path / 'run')], str(tmp_path / 'x.png'), keys=['loss'], smooth=2)
    training, validation = curves()['loss']
    assert (training.get_label(), validation.get_label()) == ('loss', 'loss, validation')
    np.testing.assert_array_equal(training.get_xydata(), [[5, 4], [10, 3]])
    np.testing.assert_array_equal(validation.get_xydata(), [[5, 5], [10, 3]])
    assert validation.get_linestyle() == '--' and training.get_linestyle() == '-'


def test_one_value_is_a_dot_and_none_is_said(tmp_path, curves):
    lines = [dict(train_line(5, 4.0), loss_contrast_p3=float('nan')), train_line(10, float('nan'))]
    write(tmp_path / 'run', '20260101_000000', lines)
    plot_losses([str(tmp_path / 'run')], str(tmp_path / 'x.png'))
    (loss,), (contrast,) = curves().values()
    assert (loss.get_label(), loss.get_marker()) == ('loss', 'o')
    assert contrast.get_label() == 'p3 (not finite)'


def test_several_runs_have_a_panel_for_each_value_and_keep_their_colour(work_dir, tmp_path, curves):
    # The second run logs no AP; the first no loss_dfl.
    lines = [dict(loss=1.0, loss_dfl=0.5, epoch=1, iter=5, step=5)]
    write(tmp_path / 'other', '20260101_000000', lines)
    plot_losses([str(work_dir), str(tmp_path / 'other')], str(tmp_path / 'x.png'))
    panels = curves()
    assert [line.get_label() for line in panels['loss']] == ['a [run]', 'other']
    assert [line.get_label() for line in panels['coco/bbox_mAP']] == ['a [run]']
    (only,) = panels['loss_dfl']
    assert only.get_color() == panels['loss'][1].get_color() != panels['loss'][0].get_color()


def test_unknown_key_lists_the_known_ones(work_dir, tmp_path):
    with pytest.raises(LaunchError, match=r"logged \['loss_p9'\]; there are: loss, loss_con"):
        plot_losses([str(work_dir)], str(tmp_path / 'x.png'), keys=['loss_p9'])
    assert not (tmp_path / 'x.png').exists()
