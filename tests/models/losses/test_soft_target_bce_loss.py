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


def test_class_weights():
    logits, target = torch.randn(2, 3, 5), torch.rand(2, 3, 5)
    weighted = SoftTargetBCELoss(class_weight=[0, 1, 2])(logits, target, avg_factor=1)
    one, two = [SoftTargetBCELoss()(logits[:, c], target[:, c], avg_factor=1) for c in (1, 2)]
    assert weighted.item() == pytest.approx((one + 2 * two).item(), rel=1e-5)
    assert SoftTargetBCELoss(class_weight=[0, 1, 2]).state_dict() == {}


def test_mmdetections_class_weight_trains_a_class_of_weight_zero():
    """Why this loss exists: classes left to a teacher must get no gradient."""
    logits, target = torch.randn(6, 3), torch.rand(6, 3)
    ours = SoftTargetBCELoss(class_weight=[0, 1, 1])
    theirs = CrossEntropyLoss(use_sigmoid=True, class_weight=[0, 1, 1])
    gradients = []
    for loss in (ours, theirs):
        leaf = logits.clone().requires_grad_()
        loss(leaf, target, avg_factor=1).backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(gradients[0][:, 1:], gradients[1][:, 1:])
    assert (gradients[0][:, 0] == 0).all()
    # towards 0, for every target
    torch.testing.assert_close(gradients[1][:, 0], (1 - target[:, 0]) * logits[:, 0].sigmoid())
