import pytest
import torch
from mmdet.models.losses import CrossEntropyLoss

from mmdet_contrast.models.losses import SoftTargetBCELoss


def test_equals_mmdetection_and_the_formula():
    torch.manual_seed(0)
    logits = torch.randn(2, 5, 7, dtype=torch.double, requires_grad=True)
    target = torch.rand(2, 5, 7, dtype=torch.double)
    ours = SoftTargetBCELoss(loss_weight=0.5)(logits, target, avg_factor=3)
    p = logits.sigmoid()
    formula = -(target * p.log() + (1 - target) * (1 - p).log()).sum() * 0.5 / 3
    torch.testing.assert_close(ours, formula)
    theirs = CrossEntropyLoss(use_sigmoid=True, loss_weight=0.5)(
        logits.reshape(10, 7), target.reshape(10, 7), avg_factor=3
    )
    torch.testing.assert_close(ours.float(), theirs.float())
    (gradient,) = torch.autograd.grad(ours, logits)
    torch.testing.assert_close(gradient, (p - target).detach() * 0.5 / 3)


def test_is_the_mean_by_default_and_takes_weights():
    logits, target = torch.randn(4, 3), torch.rand(4, 3)
    weight = torch.tensor([1.0, 0.0, 0.0, 0.0])[:, None]
    loss = SoftTargetBCELoss()
    assert loss(logits, target, weight).item() == pytest.approx(
        loss(logits[:1], target[:1]).item() / 4
    )
    assert loss(logits[:0], target[:0]).item() == 0
