import pytest
from mmdet.registry import HOOKS

from mmdet_contrast.engine.hooks import FreezeBackboneHook


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        (dict(freeze_epochs=2, freeze_iters=3), 'one of the two'),
        (dict(freeze_epochs=2.5), 'freeze_epochs=2.5'),
        (dict(freeze_iters=-2), 'freeze_iters=-2'),
        (dict(freeze_iters=True), 'freeze_iters=True'),
        (dict(lr_mult=0), 'lr_mult=0'),
        (dict(warmup_iters=-1), 'warmup_iters=-1'),
        (dict(modules=()), r'modules=\(\)'),
        (dict(modules=[3]), r'modules=\[3\]'),
        (dict(stages=[]), 'empty list'),
        (dict(stages=[dict(modules='neck')], freeze_epochs=3), 'in each stage'),
        (dict(stages=[dict(modules='neck', epochs=3)]), r"stages\[0\].*unknown keys 'epochs'"),
    ],
)
def test_values_that_are_not_possible(arguments, said):
    with pytest.raises(ValueError, match=said):
        FreezeBackboneHook(**arguments)


def test_defaults():
    (stage,) = FreezeBackboneHook().stages
    assert (stage.modules, stage.freeze_epochs, stage.freeze_iters) == (('backbone',), 5, None)
    assert HOOKS.get('FreezeBackboneHook') is FreezeBackboneHook
