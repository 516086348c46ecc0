"""The collective by itself; tests/test_distributed*.py compare two processes with one."""

import warnings

import pytest
import torch
import torch.distributed as dist

from mmdet_contrast.models.contrast import gather


@pytest.fixture
def several_ranks(tmp_path, monkeypatch):
    """A group of one process that takes the path of several."""
    dist.init_process_group('gloo', init_method=f'file://{tmp_path}/meet', rank=0, world_size=1)
    sizes = iter([2])
    monkeypatch.setattr(gather, 'get_world_size', lambda: next(sizes, 1))
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32, torch.float16])
@pytest.mark.parametrize('count', [3, 0])
def test_rows_and_gradient_go_through_without_a_warning(several_ranks, dtype, count):
    rows = torch.randn(count, 4).to(dtype).requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        joined, ranks = gather.gather_rows(rows)
        (2 * joined).sum().backward()
    assert torch.equal(joined, rows) and ranks.tolist() == [0] * count
    assert rows.grad.dtype == dtype and torch.equal(rows.grad, torch.full_like(rows, 2))


def test_without_other_ranks_rows_come_back_as_they_are():
    rows = torch.randn(3, 4)
    joined, ranks = gather.gather_rows(rows)
    assert joined is rows and ranks.tolist() == [0, 0, 0]
