"""Runs of several processes: the launcher's environment, and gloo on machines without a GPU."""

import os
import warnings
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import barrier, init_dist, is_distributed
from mmengine.registry import MODEL_WRAPPERS
from mmengine.utils.dl_utils import set_multi_processing
from torch.nn.parallel import DistributedDataParallel

from mmdet_contrast.compat import without_cuda_device

from .launch_checks import LaunchError
from .type_name import type_name

__all__ = ['LAUNCHERS', 'set_up_distributed', 'shut_down']

LAUNCHERS = ('none', 'pytorch', 'slurm', 'mpi')

# What a launcher must have set, and how a user gets it set.
_LAUNCHER_ENV = {
    'pytorch': (
        ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT'),
        'start through tools/dist_train.sh or tools/dist_test.sh (torchrun)',
    ),
    'slurm': (
        ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_NODELIST'),
        'start through tools/slurm_train.sh (srun)',
    ),
    'mpi': (
        (
            'OMPI_COMM_WORLD_RANK',
            'OMPI_COMM_WORLD_SIZE',
            'OMPI_COMM_WORLD_LOCAL_RANK',
            'MASTER_ADDR',
        ),
        'start through mpirun with MASTER_ADDR set',
    ),
}

_LOCAL_RANK_ENV = {
    'pytorch': 'LOCAL_RANK',
    'slurm': 'SLURM_LOCALID',
    'mpi': 'OMPI_COMM_WORLD_LOCAL_RANK',
}

_SYNC_BN_TYPES = ('SyncBN', 'MMSyncBN', 'SyncBatchNorm')


def shut_down() -> None:
    """Leave the process group at the end of a program; does nothing outside of one.

    A process that exits with gloo's threads still running may be aborted although it has finished.
    """
    if is_distributed():
        barrier()
        torch.distributed.destroy_process_group()


def set_up_distributed(cfg: Config) -> None:
    """Check the launcher, join the processes on a machine without a GPU, and adapt the config.

    Args:
        cfg (Config): Config with its ``launcher``; changed in place.

    Raises:
        LaunchError: If the launcher's environment variables are missing, or if there are more
            processes than GPUs.
    """
    launcher = cfg.launcher
    names, remedy = _LAUNCHER_ENV[launcher]
    missing = [name for name in names if name not in os.environ]
    if missing and not is_distributed():
        raise LaunchError(
            f'--launcher {launcher} needs the environment variables {", ".join(missing)}, which '
            f'are not set: {remedy}, or leave out --launcher.'
        )
    local_name = _LOCAL_RANK_ENV[launcher]
    if local_name in os.environ:
        # Runner.wrap_model reads LOCAL_RANK for every launcher, but not every launcher sets it.
        os.environ['LOCAL_RANK'] = os.environ[local_name]
    device = get_device()
    if device == 'cuda':
        local_rank = int(os.environ.get('LOCAL_RANK', 0))
        if local_rank >= torch.cuda.device_count():
            raise LaunchError(
                f'process {local_rank} of this machine has no GPU, because torch sees '
                f'{torch.cuda.device_count()}: start at most that many processes on it.'
            )
    elif device in ('cpu', 'mps'):
        _set_up_cpu(cfg)
    hooks = cfg.get('custom_hooks') or []
    if not any(hook.get('type') == 'SyncBuffersHook' for hook in hooks if isinstance(hook, dict)):
        cfg.custom_hooks = [*hooks, dict(type='SyncBuffersHook')]


def _set_up_cpu(cfg: Config) -> None:
    if get_device() == 'mps':
        raise LaunchError(
            'distributed training runs on CUDA or on the CPU, but torch uses Apple MPS here: leave '
            'out --launcher.'
        )
    if not is_distributed():
        env_cfg = cfg.get('env_cfg') or {}
        dist_cfg = dict(env_cfg.get('dist_cfg') or {})
        # nccl moves GPU memory only, and the stock configs name it.
        if dist_cfg.get('backend', 'nccl') == 'nccl':
            dist_cfg['backend'] = 'gloo'
        # First, because init_dist would set 'spawn' and the runner would then warn of the change.
        set_multi_processing(**(env_cfg.get('mp_cfg') or {}), distributed=True)
        with without_cuda_device():
            init_dist(cfg.launcher, **dist_cfg)
    _plain_batch_norm(cfg)
    wrapper = cfg.get('model_wrapper_cfg')
    if wrapper is None:
        # The values that Runner.wrap_model itself uses, but for device_ids.
        wrapper = dict(
            type='MMDistributedDataParallel',
            broadcast_buffers=False,
            find_unused_parameters=cfg.get('find_unused_parameters', False),
        )
    wrapper.setdefault('type', 'MMDistributedDataParallel')
    wrapper_class = MODEL_WRAPPERS.get(wrapper['type'])
    if wrapper_class is not None and issubclass(wrapper_class, DistributedDataParallel):
        wrapper['device_ids'] = None
    cfg.model_wrapper_cfg = wrapper


def _plain_batch_norm(cfg: Config) -> None:
    """Replace SyncBN by BN in the model's config, with one warning."""
    found = cfg.get('sync_bn') is not None

    def visit(node: Any) -> None:
        nonlocal found
        if isinstance(node, dict):
            if type_name(node.get('type')) in _SYNC_BN_TYPES:
                node['type'] = 'BN'
                found = True
            children = list(node.values())
        else:
            children = list(node) if isinstance(node, (list, tuple)) else []
        for child in children:
            visit(child)

    visit(cfg.model)
    if found:
        cfg.sync_bn = None
        warnings.warn(
            'synchronised batch normalisation (SyncBN, or sync_bn in the config) needs GPUs: this '
            'run on the CPU uses plain BN, whose statistics are per process.',
            stacklevel=2,
        )
