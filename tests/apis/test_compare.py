"""Comparisons: statistics, tables, the runs behind them, and one that really trains."""

import json
import math
import runpy
import sys
from pathlib import Path
from unittest import mock

import cv2
import pytest

from mmdet_contrast import apis
from mmdet_contrast.apis import Comparison, RunResult, compare, runs
from mmdet_contrast.utils.config import LaunchError, config_path

CONFIG = """
default_scope = 'mmdet'
model = dict(type='Toy', weight=1.0)
train_dataloader = dict(batch_size=1)
train_cfg = dict(max_epochs=4)
val_dataloader = dict(batch_size=7)
val_cfg = dict()
val_evaluator = dict(type='CocoMetric', ann_file='val.json')
test_dataloader = dict(batch_size=9, persistent_workers=True)
test_cfg = dict(type='TestLoop')
test_evaluator = [dict(type='CocoMetric', ann_file='test.json'), dict(type='Other')]
"""
TINY = """
_base_ = {base!r}
# else a detector that has learnt nothing detects nothing
model = dict(test_cfg=dict(score_thr=0.001))
train_dataloader = dict(batch_size=4, dataset=dict(data_root={root!r}))
val_dataloader = dict(dataset=dict(data_root={root!r}))
val_evaluator = dict(ann_file={root!r} + 'annotations/instances_val.json', classwise=False)
train_cfg = dict(max_epochs=1)
default_hooks = dict(logger=dict(interval=1))
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(vis_backends=vis_backends)
"""


def comparison(**values):
    """A comparison of configs by their values of ``bbox_mAP``."""
    seeds = list(range(max(map(len, values.values()))))
    results = {
        name: [RunResult(dict(bbox_mAP=x), 0.1 * (number + 1)) for x in found]
        for number, (name, found) in enumerate(values.items())
    }
    return Comparison(results, seeds)


class Tools:
    """Stands for ``subprocess.call``: writes what training and testing would."""

    def __init__(self):
        self.calls = []
        self.fails = lambda folder, tool: False
        self.found = None

    def __call__(self, command, stdout, env, **kwargs):
        tool, config, folder = Path(command[1]).name, Path(command[2]), Path(command[-1])
        self.calls.append((tool, *folder.parts[-3:]))
        self.command, self.env = command, env
        if self.fails(folder, tool):
            stdout.write('first line\na reason\n')
            return 1
        if tool == 'train.py':
            (folder / 'epoch_4.pth').touch()
            (folder / 'last_checkpoint').write_text('/elsewhere/epoch_4.pth')
            (folder / 'time/vis_data').mkdir(parents=True, exist_ok=True)
            lines = [
                json.dumps(dict(time=t, epoch=1, iter=i + 1, step=i + 1))
                for i, t in enumerate([9.0, 9.0, 9.0, 0.2, 0.3, 0.4])
            ]
            (folder / 'time/vis_data/scalars.json').write_text('\n'.join(lines))
        else:
            cfg = runs.Config.fromfile(str(config))
            found = {'coco/bbox_mAP': 0.1 * cfg.model.weight, 'coco/a/b_precision': 0.5}
            (folder / '2026').mkdir(parents=True)
            found = dict(self.found or found, time=3.0, data_time=1.0)
            (folder / '2026/2026.json').write_text(json.dumps(found))
            # a completed copy of an annotation file
            (folder / 'annotations').mkdir()
            (folder / 'annotations/val.json').write_text('{"images": []}')
        return 0


@pytest.fixture
def tools(monkeypatch):
    tools = Tools()
    monkeypatch.setattr(runs.subprocess, 'call', tools)
    return tools


@pytest.fixture
def config(tmp_path):
    path = tmp_path / 'plain.py'
    path.write_text(CONFIG)
    return path


def test_statistics_are_those_by_hand():
    found = comparison(plain=[0.40, 0.42, 0.44], other=[0.43, 0.46, 0.46])
    plain = found.statistic('plain', 'bbox_mAP')
    assert plain.mean == pytest.approx(42) and plain.std == pytest.approx(2)
    assert plain.difference is None and plain.interval is None
    # differences 3, 4, 2: mean 3, standard deviation 1; t(0.975, 2 degrees) = 4.30265
    other = found.statistic('other', 'bbox_mAP')
    half = 4.30265 / math.sqrt(3)
    assert other.difference == pytest.approx(3)
    assert other.interval == pytest.approx((3 - half, 3 + half), abs=1e-4)


def test_one_seed_has_no_spread_and_no_interval():
    found = comparison(plain=[0.4], other=[0.5])
    assert found.statistic('other', 'bbox_mAP') == pytest.approx((50, None, 10, None))
    assert '| bbox_mAP    | 40.0 ± - | 50.0 ± - |' in found.to_markdown()
    assert '| bbox_mAP    | +10.0 [-] |' in found.to_markdown()


def test_seeds_without_a_value_are_left_out_in_pairs():
    found = comparison(plain=[0.4, -1, 0.6], other=[0.5, 0.5, math.nan])
    assert found.statistic('plain', 'bbox_mAP').mean == pytest.approx(50)
    assert found.statistic('other', 'bbox_mAP') == pytest.approx((50, 0, 10, None))
    assert comparison(plain=[-1, -1]).statistic('plain', 'bbox_mAP') is None
    assert '| bbox_mAP    | -     |' in comparison(plain=[-1, -1]).to_markdown()


def test_tables():
    found = comparison(plain=[0.40, 0.42, 0.44], other=[0.43, 0.46, 0.46])
    for run in found.runs['other']:
        run.metrics['big dog_precision'] = 0.3
    # standard deviation of 43, 46, 46: √3
    assert found.to_markdown().splitlines() == [
        'val split, per cent, mean ± standard deviation over seeds 0, 1, 2:',
        '',
        '|             | plain      | other      |',
        '|-------------|------------|------------|',
        '| bbox_mAP    | 42.0 ± 2.0 | 45.0 ± 1.7 |',
        '| AP big dog  | -          | 30.0 ± 0.0 |',
        '| ms per step | 100        | 200        |',
        '',
        'Difference to plain, same seed minus same seed, with its 95 % confidence interval:',
        '',
        '|             | other             |',
        '|-------------|-------------------|',
        '| bbox_mAP    | +3.0 [+0.5, +5.5] |',
        '| AP big dog  | -                 |',
        '| ms per step | × 2.00            |',
    ]


def test_json_holds_no_nan(tmp_path):
    comparison(plain=[0.4, -1], other=[-1, -1]).save(tmp_path)
    found = json.loads((tmp_path / 'compare.json').read_text(), parse_constant=pytest.fail)
    assert found['values'] == dict(
        plain=dict(bbox_mAP=[40, None]), other=dict(bbox_mAP=[None, None])
    )
    assert found['statistics']['plain']['bbox_mAP']['mean'] == 40
    assert found['statistics']['other']['bbox_mAP'] is None
    assert found['step_time'] == dict(plain=[0.1, 0.1], other=[0.2, 0.2])


def test_every_config_is_run_with_every_seed_once(config, tmp_path, tools, capsys):
    more = {'heavy': (config, {'model.weight': 2.0})}
    out = tmp_path / 'out'
    found = compare([config], out, seeds=(0, 3), jobs=1, variants=more)
    assert tools.calls == [
        call
        for seed in ('seed0', 'seed3')
        for name in ('plain', 'heavy')
        for call in (('train.py', 'out', name, seed), ('test.py', name, seed, 'val'))
    ]
    assert tools.env['OMP_NUM_THREADS'] == tools.env['MKL_NUM_THREADS'] == str(runs._cores())
    assert found.values('plain', 'bbox_mAP') == pytest.approx([10, 10])
    assert found.values('heavy', 'bbox_mAP') == pytest.approx([20, 20])
    # a class may be called a/b, the time of testing is no metric
    assert found.metrics == ['bbox_mAP', 'a/b_precision']
    assert found.step_time('plain') == pytest.approx(0.3)
    assert {'compare.md', 'compare.json', 'compare.png'} <= {path.name for path in out.iterdir()}
    shown = capsys.readouterr().err
    assert f'plain, seed 0: {out}/plain/seed0/train.log\n' in shown
    assert '4.0/4 runs' in shown
    tools.calls.clear()
    assert compare([config], out, seeds=(0, 3), variants=more) == found
    assert not tools.calls


def test_what_is_new_is_run_and_what_was_interrupted_is_resumed(config, tmp_path, tools):
    tools.fails = lambda folder, tool: tool == 'test.py'
    with pytest.raises(LaunchError, match=r'test\.py failed for .*val \(see .*test\.log\): a rea'):
        compare([config], tmp_path, seeds=(0,))
    tools.fails = lambda folder, tool: False
    compare([config], tmp_path, seeds=(0, 1))
    assert [call[0] for call in tools.calls] == ['train.py', 'test.py'] * 3
    tools.calls.clear()
    tools.fails = lambda folder, tool: tool == 'train.py' and '--resume' not in tools.command
    compare([config], tmp_path, seeds=(0, 1, 2), jobs=2)
    assert {call[2:] for call in tools.calls} == {('plain', 'seed2'), ('seed2', 'val')}
    assert tools.env['OMP_NUM_THREADS'] == str(max(1, runs._cores() // 2))


def test_both_splits_share_a_training(config, tmp_path, tools):
    compare([config], tmp_path, seeds=(0,))
    compare([config], tmp_path, seeds=(0,), split='test')
    val, test = (
        runs.Config.fromfile(str(tmp_path / f'plain/seed0_{split}.py')) for split in ('val', 'test')
    )
    assert val.test_dataloader.to_dict() == dict(batch_size=7)
    assert val.test_evaluator.to_dict() == dict(
        type='CocoMetric', ann_file='val.json', classwise=True
    )
    assert test.test_dataloader.batch_size == 9
    assert [evaluator.get('classwise') for evaluator in test.test_evaluator] == [True, None]
    train = runs.Config.fromfile(str(tmp_path / 'plain/seed0.py'))
    assert train.randomness.seed == 0 and 'classwise' not in train.val_evaluator
    assert json.loads((tmp_path / 'compare.json').read_text())['split'] == 'test'


def test_other_options_in_the_same_folder_are_refused(config, tmp_path, tools):
    options = {'model.weight': 2.0, 'model.sizes': [(1, 'a'), None, (64, float('inf'))]}
    compare([config], tmp_path, seeds=(0,), cfg_options=options)
    compare([config], tmp_path, seeds=(0, 1), cfg_options=options)
    with pytest.raises(LaunchError, match=r'seed0 was run with another config or other options'):
        compare([config], tmp_path, seeds=(0,))


def test_metrics_of_two_evaluators_stay_apart(config, tmp_path, tools):
    tools.found = {'big/bbox_mAP': 0.4, 'small/bbox_mAP': 0.2, 'small/AR': 0.3, 'bbox_mAP': 0.1}
    found = compare([config], tmp_path, seeds=(0,))
    del tools.found['small/AR']
    assert found.runs['plain'][0].metrics == dict(tools.found, AR=0.3)


def test_runs_that_wait_are_not_started_after_a_failure(config, tmp_path, tools):
    tools.fails = lambda folder, tool: True
    with pytest.raises(LaunchError, match=r'train\.py failed for .*seed0 .*\.log\): a reason'):
        compare([config], tmp_path, seeds=range(9), jobs=1)
    assert tools.calls == [('train.py', tmp_path.name, 'plain', 'seed0')]


def test_what_cannot_be_run_is_said_before_anything_is(config, tmp_path, tools):
    other = tmp_path / 'a'
    other.mkdir()
    (other / 'plain.py').write_text(CONFIG.replace('val_dataloader', 'nothing'))
    with pytest.raises(LaunchError, match=r"absent\.py' does not exist"):
        compare([config, tmp_path / 'absent.py'], tmp_path)
    with pytest.raises(LaunchError, match=r"are both called 'plain': give one of them"):
        compare([config, other / 'plain.py'], tmp_path)
    with pytest.raises(LaunchError, match=r'config plain has no val_dataloader'):
        compare([other / 'plain.py'], tmp_path)
    assert not tools.calls


def test_the_program_passes_on_its_options(repo_root, tmp_path, monkeypatch, capsys):
    asked = {}

    def stub(**kwargs):
        asked.update(kwargs)
        return comparison(plain=[0.4])

    def run(*arguments):
        asked.clear()
        monkeypatch.setattr(sys, 'argv', ['compare.py', *arguments])
        runpy.run_path(str(repo_root / 'tools/compare.py'), run_name='__main__')

    monkeypatch.setattr(apis, 'compare', stub)
    run('a.py', 'b.py')
    assert asked == dict(
        configs=['a.py', 'b.py'],
        variants=None,
        seeds=[0, 1, 2],
        jobs=1,
        work_dir='work_dirs/compare',
        split='val',
        cfg_options=None,
    )
    assert '| bbox_mAP    | 40.0 ± - |' in capsys.readouterr().out
    more = ['--variant', 'x', 'a.py', 'k.w=0', 'k.s=1,2', '--variant', 'y y', 'b.py']
    run('a.py', *more, '--seeds', '3', '--cfg-options', 'm=None', '--split', 'test')
    assert asked['variants'] == {'x': ('a.py', {'k.w': 0, 'k.s': [1, 2]}), 'y y': ('b.py', {})}
    assert (asked['seeds'], asked['cfg_options'], asked['split']) == ([3], {'m': None}, 'test')
    for wrong in (['--variant', 'x'], [*more, '--variant', 'x', 'c.py']):
        with pytest.raises(SystemExit):
            run(*wrong)
        assert 'a new NAME and a CONFIG expected' in capsys.readouterr().err
    monkeypatch.setattr(apis, 'compare', compare)
    with pytest.raises(SystemExit, match=r"compare\.py: error: config file 'no\.py'"):
        run('no.py', '--work-dir', str(tmp_path))
    for error, shown in ((LaunchError('a run'), SystemExit), (RuntimeError('a bug'), None)):
        monkeypatch.setattr(apis, 'compare', mock.Mock(side_effect=error))
        with pytest.raises(shown or type(error), match=str(error)):
            run('a.py')


@pytest.mark.slow
def test_a_real_comparison(tiny_shapes, tmp_path, capsys):
    tiny = tmp_path / 'tiny.py'
    base = config_path('retina_shapes.py')
    tiny.write_text(TINY.format(base=base, root=f'{tiny_shapes}/'))
    out = tmp_path / 'out'
    slow = {'slow': (tiny, {'optim_wrapper.optimizer.lr': 1e-6})}
    found = compare([tiny], out, seeds=[5], jobs=2, variants=slow)
    assert {'bbox_mAP', 'striped_disc_precision'} <= set(found.metrics)
    assert found.step_time('slow') > 0
    assert (out / 'compare.md').read_text() == found.to_markdown() + '\n'
    assert '2.0/2 runs' in capsys.readouterr().err
    assert 'mAP_copypaste' in (out / 'slow/seed5/val/test.log').read_text()
    cfg = runs.Config.fromfile(str(out / 'slow/seed5/seed5.py'))
    assert cfg.optim_wrapper.optimizer.lr == 1e-6 and cfg.randomness.seed == 5
    assert cv2.imread(str(out / 'compare.png')).std() > 10
