"""The operators of PyTorch that a call runs: those that a GPU would launch, and wait for."""

from collections import Counter
from typing import List

import torch
from torch.utils._python_dispatch import TorchDispatchMode

# What has a value, or a size, that only the GPU would know, by its name in the dispatcher.
WAITS = (
    '_local_scalar_dense',
    '_unique2',
    'bincount',
    'equal',
    'masked_select',
    'nonzero',
    'repeat_interleave',
    'unique_consecutive',
    'unique_dim',
    'unique_dim_consecutive',
)
# Allocations, and views whose schema does not say so.
NO_KERNEL = ('empty', 'new_empty', 'detach', 'promote_types', '_unsafe_view')


class OperatorCalls(TorchDispatchMode):
    """Record the operators that compute something, and those for which a GPU is waited for.

    Views, bare allocations and tensors without elements launch nothing. Kernels that are no
    operators of PyTorch's, such as mmcv's, are not seen.

    Examples:
        >>> with OperatorCalls() as calls:
        ...     (torch.ones(3) + 1).sum().item()
        >>> calls.kernels, calls.waits
        (Counter({'ones': 1, 'add': 1, 'sum': 1}), ['_local_scalar_dense'])
    """

    def __init__(self) -> None:
        super().__init__()
        self.kernels: Counter = Counter()
        self.waits: List[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Run one operator and record it."""
        out = func(*args, **(kwargs or {}))
        name, returns = func.overloadpacket.__name__, func._schema.returns
        by_mask = name.startswith('index') and any(
            isinstance(x, torch.Tensor) and x.dtype in (torch.bool, torch.uint8)
            for x in (args[1] if isinstance(args[1], (list, tuple)) else ())
        )
        if by_mask or name in WAITS:
            self.waits.append(name)
        is_view = returns and all(r.alias_info and not r.alias_info.is_write for r in returns)
        nothing = isinstance(out, torch.Tensor) and out.numel() == 0
        if not (is_view or nothing or name.startswith(NO_KERNEL) or name == '_local_scalar_dense'):
            self.kernels[name] += 1
        return out
