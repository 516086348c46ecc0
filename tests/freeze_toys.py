"""A small model of backbone, neck and head, and a Runner for it."""

from contextlib import contextmanager

import torch
from knn_runs import tiny_config
from mmdet.registry import HOOKS, OPTIM_WRAPPERS
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

IMAGES, BATCH = 8, 2
EPOCH = IMAGES // BATCH


def part(channels):
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3)
    )


class Toy(BaseModel):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Sequential(part(3), part(4))
        self.neck = part(4)
        self.head = nn.Conv2d(4, 1, 1)

    def forward(self, images, mode='tensor'):
        return dict(loss=self.head(self.neck(self.backbone(images))).square().sum() / 10)


class ToyAmpOptimWrapper(OptimWrapper):
    """MMEngine's AmpOptimWrapper needs a GPU; this is bfloat16 on the processor."""

    @contextmanager
    def optim_context(self, model):
        with super().optim_context(model), torch.autocast('cpu', dtype=torch.bfloat16):
            yield


OPTIM_WRAPPERS.register_module(module=ToyAmpOptimWrapper, force=True)


class Recorder(Hook):
    """The state of the model at the beginning and after each iteration; seeds dropout."""

    priority = 'VERY_LOW'

    def __init__(self):
        self.states, self.saved = {}, {}

    def before_train(self, runner):
        self.first = runner.iter
        self.states[runner.iter - 1] = self.state(runner)

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        torch.manual_seed(runner.iter)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.states[runner.iter] = self.state(runner)

    @staticmethod
    def state(runner):
        return {k: v.clone() for k, v in runner.model.state_dict().items()}

    def moved(self, key, begin, end):
        """Whether a value changed in the iterations from ``begin`` to before ``end``."""
        return not torch.equal(self.states[begin - 1][key], self.states[end - 1][key])


HOOKS.register_module(module=Recorder, force=True)


def make_runner(work_dir, hooks, model=None, by_epoch=True, length=4, optim=None, **kwargs):
    """Return a runner over ``length`` epochs of 4 iterations, or over ``length`` iterations."""
    generator = torch.Generator().manual_seed(1)
    rank = kwargs.pop('rank', 0)
    images = torch.randn(2, IMAGES, 3, 4, 4, generator=generator)[rank]
    name = 'max_epochs' if by_epoch else 'max_iters'
    wrapper = dict(
        optimizer=dict(type='SGD', lr=0.05, momentum=0.9, weight_decay=0.1),
        clip_grad=dict(max_norm=10.0),
    )
    wrapper.update(optim or {})
    return Runner(
        model=Toy() if model is None else model,
        work_dir=str(work_dir),
        train_dataloader=DataLoader(
            list(images), batch_size=BATCH, collate_fn=lambda x: dict(images=torch.stack(x))
        ),
        train_cfg={'by_epoch': by_epoch, name: length},
        optim_wrapper=wrapper,
        custom_hooks=list(hooks),
        default_hooks=dict(
            logger=None, checkpoint=dict(type='CheckpointHook', interval=1, by_epoch=by_epoch)
        ),
        experiment_name=f'freeze-{str(work_dir)[-60:]}',
        default_scope='mmdet',
        **kwargs,
    )


def train(work_dir, *hooks, **kwargs):
    """Train the toy with hooks; return its runner and what was recorded."""
    recorder = Recorder()
    runner = make_runner(work_dir, [*hooks, recorder], **kwargs)
    runner.train()
    return runner, recorder


def keys_of(runner, prefix):
    """Names of parameters and of running statistics below a prefix."""
    return [k for k in runner.model.state_dict() if k.startswith(f'{prefix}.')]


def assert_frozen_until(runner, recorder, prefix, iteration, end=16, at_once=True):
    """Parameters and statistics stand still to the last bit, then all of them move."""
    keys = keys_of(runner, prefix)
    assert any('running_var' in k for k in keys) and any('weight' in k for k in keys)
    for key in keys:
        for i in range(recorder.first, min(iteration, end)):
            assert not recorder.moved(key, i, i + 1), (key, i)
        if iteration < end:
            assert recorder.moved(key, iteration, iteration + 1) or not at_once, key
            assert recorder.moved(key, iteration, end), key


def retinanet(root, work_dir, hook, frozen_stages=-1, by_epoch=True):
    """The shipped RetinaNet, tiny: 3 iterations of 64 x 64 pictures to an epoch."""
    cfg = tiny_config(root, work_dir, [])
    cfg.model.backbone.frozen_stages = frozen_stages
    cfg.train_cfg = (
        dict(by_epoch=True, max_epochs=2, val_interval=1)
        if by_epoch
        else dict(by_epoch=False, max_iters=6, val_interval=2)
    )
    cfg.custom_hooks = [hook, dict(type='Recorder')]
    return Runner.from_cfg(cfg)
