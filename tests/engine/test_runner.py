"""Runs that are refused before anything is built, and runs that are not."""

import json
import subprocess
import sys
from pathlib import Path

import mmdet
import pytest
import torch
from mmdet.registry import DATASETS, METRICS, MODELS
from mmengine.config import Config
from mmengine.dist import get_rank
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import RUNNERS
from two_processes import run_in_two_processes, serve

from mmdet_contrast.engine import CheckedRunner
from mmdet_contrast.engine.run_checks.first_process import in_first_process
from mmdet_contrast.utils.config import LaunchError, config_path


@MODELS.register_module()
class RunnerToy(BaseModel):
    def __init__(self, data_preprocessor=None):
        super().__init__(data_preprocessor)
        self.layer = torch.nn.Linear(1, 1)

    def forward(self, inputs, mode='tensor'):
        loss = self.layer(torch.stack(inputs)).mean()
        return dict(loss=loss) if mode == 'loss' else [loss]


@DATASETS.register_module()
class RunnerToyDataset(torch.utils.data.Dataset):
    metainfo = dict(classes=('a',))

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return dict(inputs=torch.ones(1))


@METRICS.register_module()
class RunnerToyMetric(BaseMetric):
    default_prefix = 'toy'

    def process(self, data_batch, data_samples):
        self.results += data_samples

    def compute_metrics(self, results):
        return dict(n=len(results))


SAVING = dict(type='CheckpointHook', rule='greater')


class Recorder(Hook):
    """Keeps when it is called, and what is built by then."""

    def __init__(self):
        self.calls = []

    def before_build(self, runner, mode):
        built = [key for key, value in runner.pending.items() if not isinstance(value, dict)]
        self.calls.append((mode, [key for key in built if runner.pending[key] is not None]))

    def before_run(self, runner):
        self.calls.append('run')


def toy_runner(work_dir, **changes):
    loader = dict(
        batch_size=1,
        dataset=dict(type='RunnerToyDataset'),
        sampler=dict(type='DefaultSampler', shuffle=False),
    )
    cfg = dict(
        runner_type='mmdet.CheckedRunner',
        default_scope='mmdet',
        experiment_name=Path(work_dir).name,
        work_dir=str(work_dir),
        model=dict(type='RunnerToy'),
        train_cfg=dict(by_epoch=True, max_epochs=2),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        val_cfg=dict(),
        test_cfg=dict(),
        custom_hooks=[dict(type='RunCheckHook')],
        **{f'{split}_dataloader': loader for split in ('train', 'val', 'test')},
        **{f'{split}_evaluator': dict(type='RunnerToyMetric') for split in ('val', 'test')},
    )
    # the registry that MMDetection's tools/train.py looks in
    return RUNNERS.build(Config(dict(cfg, **changes)))


def test_hooks_are_called_before_anything_is_built(tmp_path):
    runner, recorder = toy_runner(tmp_path / 'runner-hooks'), Recorder()
    runner.register_hook(recorder)
    assert isinstance(runner, CheckedRunner)
    runner.train()
    assert recorder.calls == [('train', []), ('val', ['optim_wrapper']), 'run']
    # MMDetection's tools/test.py asks for the evaluator before it tests
    assert runner.test_evaluator.metrics
    assert recorder.calls[3:] == [('test', ['optim_wrapper'])]


def test_validation_alone_is_announced(tmp_path):
    runner, recorder = toy_runner(tmp_path / 'runner-val'), Recorder()
    runner.register_hook(recorder)
    runner.val()
    assert recorder.calls == [('val', []), 'run']


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(optim_wrapper=dict(optimizer=dict(type='AdmW', lr=0.1))), "did you mean 'AdamW'"),
        (dict(train_dataloader=dict(batchsize=2)), "did you mean 'batch_size'"),
        (
            dict(custom_hooks=[dict(type='RunCheckHook'), dict(SAVING, save_best='n')]),
            "did you mean 'toy/n'",
        ),
    ],
)
def test_config_errors_come_before_anything_is_built(tmp_path, changes, message):
    runner = toy_runner(tmp_path / f'runner-{sorted(changes)[0]}', **changes)
    with pytest.raises(LaunchError, match=message):
        runner.train()
    assert isinstance(runner.pending['train_dataloader'], dict)
    assert isinstance(runner.optim_wrapper, dict)


# ----------------------------------------------------------------------------- annotation files


@pytest.fixture
def shapes_config(tiny_shapes, tmp_path):
    """A config of the small data set with a training file of one's own."""

    def make(change):
        file = tmp_path / 'train.json'
        coco = json.loads((tiny_shapes / 'annotations' / 'instances_train.json').read_text())
        change(coco)
        file.write_text(json.dumps(coco))
        cfg = Config.fromfile(config_path('retina_shapes.py'))
        cfg.work_dir = str(tmp_path / 'work')
        cfg.train_dataloader.batch_size = 4
        for split in ('train', 'val'):
            cfg[f'{split}_dataloader'].dataset.data_root = str(tiny_shapes)
        cfg.train_dataloader.dataset.ann_file = str(file)
        cfg.val_evaluator.ann_file = f'{tiny_shapes}/annotations/instances_val.json'
        cfg.visualizer.update(vis_backends=[], name=tmp_path.name)
        cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=1, val_interval=1)
        cfg.default_hooks.checkpoint.update(by_epoch=False)
        cfg.param_scheduler = None
        return cfg

    return make


def make_odd(coco):
    """Everything that the reader accepts though a data set would not, or leaves out."""
    annotations = coco['annotations']
    for position, annotation in enumerate(annotations):
        annotation['id'] = position
        del annotation['area'], annotation['iscrowd'], annotation['segmentation']
    annotations[0]['bbox'] = [5, 5, 0, 0]
    annotations[1]['iscrowd'] = 1
    annotations[2]['ignore'] = 1
    annotations[3]['bbox'] = [5000, 5000, 9, 9]
    annotations[4]['bbox'] = [-5.5, 3, 20, 1e4]
    coco['images'].append(dict(id=-5, file_name='000000.jpg', width=96.0, height=96))


def test_a_file_that_is_accepted_trains_a_step(shapes_config, tmp_path):
    runner = RUNNERS.build(shapes_config(make_odd))
    runner.train()
    assert runner.iter == 1
    log = next((tmp_path / 'work').glob('*/*.log')).read_text()
    assert 'uses the completed copy' in log and '1 crowd regions' in log


def test_mmdetections_program_stops_before_it_builds(shapes_config, tmp_path):
    def empty(coco):
        coco['annotations'] = []

    shapes_config(empty).dump(str(tmp_path / 'config.py'))
    program = Path(mmdet.__file__).parent / '.mim' / 'tools' / 'train.py'
    run = subprocess.run(
        [sys.executable, str(program), str(tmp_path / 'config.py')],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1
    last = run.stderr.strip().splitlines()[-1]
    assert 'LaunchError: train_dataloader: no box of the classes' in last
    # which pycocotools prints when a data set is built
    assert 'loading annotations' not in run.stdout


# ------------------------------------------------------------------------------ several processes


def verdicts():
    """What a process gets of what the first one does."""

    def refuse():
        raise LaunchError(f'refused by {get_rank()}')

    def fail():
        raise KeyError(f'broken in {get_rank()}')

    found = [in_first_process(lambda: f'result of {get_rank()}')]
    for function in (refuse, fail):
        try:
            in_first_process(function)
        except (LaunchError, KeyError) as error:
            found.append((type(error).__name__, error.args[0]))
    return found


def work(rank, folder):
    return verdicts()


def test_processes_end_alike(tmp_path):
    results, _ = run_in_two_processes(__file__, tmp_path)
    refused = ('LaunchError', 'refused by 0')
    assert results[0] == ['result of 0', refused, ('KeyError', 'broken in 0')]
    assert results[1] == ['result of 0', refused, ('LaunchError', "'broken in 0'")]
    assert verdicts() == results[0]


if __name__ == '__main__':
    serve(work)
