"""A learning rate that the schedulers do not change, across resuming."""

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn

from mmdet_contrast.engine.hooks import ConstantLRHook

SCHEDULERS = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=3),
    dict(type='CosineAnnealingLR', T_max=4, by_epoch=True, convert_to_iter_based=True),
]
GROUPS = dict(custom_keys=dict(predictor=dict(lr_mult=1.0)))
EPOCHWISE = [dict(type='MultiStepLR', milestones=[1, 3], by_epoch=True)]


class Toy(BaseModel):
    def __init__(self):
        super().__init__()
        self.body, self.predictor = nn.Linear(2, 2), nn.Linear(2, 2)
        self.seen = []

    def forward(self, x, mode='tensor'):
        return dict(loss=self.predictor(self.body(x.float())).square().mean())

    def train_step(self, data, optim_wrapper):
        names = {id(p): name.split('.')[0] for name, p in self.named_parameters()}
        groups = optim_wrapper.optimizer.param_groups
        self.seen.append({names[id(group['params'][0])]: group['lr'] for group in groups})
        return super().train_step(dict(x=torch.stack(list(data))), optim_wrapper)


def runner(work_dir, epochs=4, schedulers=SCHEDULERS, groups=GROUPS, hook=True, **options):
    return Runner(
        model=Toy(),
        work_dir=str(work_dir),
        train_dataloader=dict(
            dataset=[torch.ones(2)] * 6, batch_size=2, sampler=dict(type='DefaultSampler')
        ),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(
            optimizer=dict(type='SGD', lr=0.5, momentum=0.9),
            paramwise_cfg=groups,
        ),
        param_scheduler=schedulers,
        custom_hooks=[ConstantLRHook(['predictor'])] if hook else [],
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1)),
        experiment_name=work_dir.name,
        **options,
    )


@pytest.mark.parametrize('schedulers', [SCHEDULERS, EPOCHWISE], ids=['by_iter', 'by_epoch'])
def test_predictor_is_constant_and_the_rest_as_without_the_hook(schedulers, tmp_path):
    with_hook = runner(tmp_path / 'a', schedulers=schedulers)
    without = runner(tmp_path / 'b', schedulers=schedulers, hook=False)
    with_hook.train(), without.train()
    assert [seen['predictor'] for seen in with_hook.model.seen] == [0.5] * 12
    body = [seen['body'] for seen in with_hook.model.seen]
    assert body == [seen['body'] for seen in without.model.seen]
    assert len(set(body)) > 2 and body[-1] < 0.1


@pytest.mark.parametrize('schedulers', [SCHEDULERS, EPOCHWISE], ids=['by_iter', 'by_epoch'])
def test_a_resumed_run_goes_on_as_the_whole_one(schedulers, tmp_path):
    whole = runner(tmp_path / 'whole', schedulers=schedulers)
    whole.train()
    resumed = runner(
        tmp_path / 'resumed',
        schedulers=schedulers,
        load_from=str(tmp_path / 'whole/epoch_2.pth'),
        resume=True,
    )
    resumed.train()
    assert len(resumed.model.seen) == 6
    for ours, theirs in zip(resumed.model.seen, whole.model.seen[6:]):
        assert ours == pytest.approx(theirs)
    assert [seen['predictor'] for seen in resumed.model.seen] == [0.5] * 6


def test_without_a_scheduler_nothing_changes(tmp_path):
    toy = runner(tmp_path / 'a', schedulers=None)
    toy.train()
    assert toy.model.seen == [dict(body=0.5, predictor=0.5)] * 12


def test_refuses_an_unknown_module_and_a_shared_group(tmp_path):
    toy = runner(tmp_path / 'a')
    toy.register_hook(ConstantLRHook(['projector']))
    with pytest.raises(ValueError, match="'projector' names no parameter.*body, predictor"):
        toy.train()
    with pytest.raises(ValueError, match='paramwise_cfg=dict.custom_keys='):
        runner(tmp_path / 'b', groups=None).train()
