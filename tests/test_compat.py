import pytest
import torch

from mmdet_contrast import compat


def test_set_device_is_switched_off_without_a_gpu_only(monkeypatch):
    original = torch.cuda.set_device
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    with compat.without_cuda_device():
        assert torch.cuda.set_device is original
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with compat.without_cuda_device():
        torch.cuda.set_device(3)
    assert torch.cuda.set_device is original


def test_focal_loss_hands_its_kernel_no_bfloat16(monkeypatch):
    from mmdet.models.losses import focal_loss

    seen = []

    def kernel(pred, target, gamma, alpha, weight, reduction):
        seen.append(pred.dtype)
        assert pred.dtype != torch.bfloat16, 'not implemented'
        one_hot = torch.nn.functional.one_hot(target, pred.size(1) + 1)[:, :-1]
        return focal_loss.py_sigmoid_focal_loss(pred, one_hot, gamma=gamma, alpha=alpha,
                                                reduction='none')  # fmt: skip

    monkeypatch.setattr(focal_loss, '_sigmoid_focal_loss', kernel)
    compat.extend_focal_loss()
    extended = focal_loss._sigmoid_focal_loss
    compat.extend_focal_loss()
    assert focal_loss._sigmoid_focal_loss is extended
    # what FocalLoss calls on a GPU
    values = {}
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        logits = torch.linspace(-2, 2, 12).reshape(4, 3).to(dtype).requires_grad_()
        value = focal_loss.sigmoid_focal_loss(logits, torch.tensor([0, 3, 2, 1]))
        value.backward()
        assert logits.grad.dtype == dtype and logits.grad.abs().sum() > 0
        values[dtype] = value.float().item()
    assert seen == [torch.float32, torch.float16, torch.float32]
    assert values[torch.bfloat16] == pytest.approx(values[torch.float32], rel=1e-2)
