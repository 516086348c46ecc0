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
