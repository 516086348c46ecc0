"""Building a runner, for one process or several, with or without GPUs, and command lines for it."""

import argparse
import os
import warnings
from typing import Any, Callable

import torch
from mmengine.config import Config, DictAction
from mmengine.device import get_device
from mmengine.dist import barrier, init_dist, is_distributed
from mmengine.registry import MODEL_WRAPPERS, RUNNERS
from mmengine.runner import Runner
from mmengine.utils.dl_utils import set_multi_processing
from torch.nn.parallel import DistributedDataParallel

from mmdet_contrast.compat import without_cuda_device
from mmdet_contrast.engine import CheckedRunner
from mmdet_contrast.utils.config import LaunchError, type_name
from mmdet_contrast.utils.safe_loading import add_trust_option

LAUNCHERS = ('none', 'pytorch', 'slurm', 'mpi')

# Where a launcher says which of a machine's processes this is; Runner reads LOCAL_RANK only.
_LOCAL_RANK = {'slurm': 'SLURM_LOCALID', 'mpi': 'OMPI_COMM_WORLD_LOCAL_RANK'}
_SYNC_BN_TYPES = ('SyncBN', 'MMSyncBN', 'SyncBatchNorm')


def build_runner(cfg: Config) -> Runner:
    """Build a runner, distributed if ``cfg.launcher`` says so.

    It is a ``CheckedRunner``, unless the config names another ``runner_type``. Without a GPU the
    processes are joined through gloo, the model is wrapped without device ids, and synchronised
    batch normalisation, which has no CPU version, becomes plain batch normalisation with a warning;
    the config needs no change.

    Every run gets the checks of ``RunCheckHook``, and every distributed one MMEngine's
    ``SyncBuffersHook``, if the config has none: with MMEngine's default
    ``broadcast_buffers=False`` the running statistics of batch normalisation differ between
    processes, and a checkpoint would hold those of the first one only. It averages them after each
    epoch and before each validation; where iterations count, checkpoints come before that.

    Args:
        cfg (Config): Config as :func:`mmdet_contrast.utils.config.load_config` returns it; it may
            be changed in place.

    Returns:
        Runner: A runner whose ``train()``, ``val()`` and ``test()`` are ready to call.

    Raises:
        LaunchError: If there are more processes than GPUs.
    """
    _add_hook(cfg, 'mmdet.RunCheckHook')
    if cfg.get('launcher', 'none') != 'none':
        _add_hook(cfg, 'SyncBuffersHook')
        _set_up_distributed(cfg)
    if 'runner_type' in cfg:
        return RUNNERS.build(cfg)
    return CheckedRunner.from_cfg(cfg)


def run_launch(parser: argparse.ArgumentParser, entry: Callable[..., Any]) -> None:
    """Add the options that training and testing share to a command line, and run one of them.

    A :class:`LaunchError` ends the process with one line and exit status 1.

    Args:
        parser (argparse.ArgumentParser): Parser with the program's own arguments, named as the
            parameters of ``entry``.
        entry (Callable): ``mmdet_contrast.apis.train`` or ``test``; gets every argument by keyword.
    """
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='config values to override, as key=value; lists as key="[a,b]" or key=a,b',
    )
    add_trust_option(parser)
    parser.add_argument('--launcher', choices=LAUNCHERS, default='none', help='job launcher')
    parser.add_argument(
        '--local_rank', '--local-rank', type=int, default=0, help='set by launchers'
    )
    args = vars(parser.parse_args())
    os.environ.setdefault('LOCAL_RANK', str(args.pop('local_rank')))
    try:
        entry(**args)
    except LaunchError as error:
        raise SystemExit(f'{parser.prog}: error: {error}') from None
    # a process that exits with gloo's threads still running may be aborted
    if is_distributed():
        barrier()
        torch.distributed.destroy_process_group()


def _add_hook(cfg: Config, name: str) -> None:
    """Add a hook that a config has neither among its default hooks nor among its own."""
    hooks = cfg.get('custom_hooks') or []
    given = [*hooks, *(cfg.get('default_hooks') or {}).values()]
    names = [type_name(hook.get('type')) for hook in given if isinstance(hook, dict)]
    if type_name(name) not in names:
        cfg.custom_hooks = [*hooks, dict(type=name)]


def _set_up_distributed(cfg: Config) -> None:
    """Join the processes on a machine without a GPU, and adapt the config."""
    local_rank = os.environ.get(_LOCAL_RANK.get(cfg.launcher, 'LOCAL_RANK'))
    if local_rank is not None:
        os.environ['LOCAL_RANK'] = local_rank
    if get_device() == 'cpu':
        _set_up_cpu(cfg)
    elif get_device() == 'cuda' and int(local_rank or 0) >= torch.cuda.device_count():
        raise LaunchError(
            f'process {local_rank} of this machine has no GPU, because torch sees '
            f'{torch.cuda.device_count()}: start at most that many processes on it.'
        )


def _set_up_cpu(cfg: Config) -> None:
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
    if _replace_sync_bn(cfg.model) or cfg.get('sync_bn') is not None:
        cfg.sync_bn = None
        warnings.warn(
            'synchronised batch normalisation (SyncBN, or sync_bn in the config) needs GPUs: this '
            'run on the CPU uses plain BN, whose statistics are per process.',
            stacklevel=2,
        )
    # Else the values that Runner.wrap_model itself uses, but for device_ids.
    wrapper = cfg.get('model_wrapper_cfg') or dict(
        broadcast_buffers=False, find_unused_parameters=cfg.get('find_unused_parameters', False)
    )
    wrapper.setdefault('type', 'MMDistributedDataParallel')
    wrapper_class = MODEL_WRAPPERS.get(wrapper['type'])
    if wrapper_class is not None and issubclass(wrapper_class, DistributedDataParallel):
        wrapper['device_ids'] = None
    cfg.model_wrapper_cfg = wrapper


def _replace_sync_bn(node: Any) -> bool:
    """Replace SyncBN by BN in the config of a model; tell whether there was any."""
    found = False
    if isinstance(node, dict):
        found = type_name(node.get('type')) in _SYNC_BN_TYPES
        if found:
            node['type'] = 'BN'
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        found = any([_replace_sync_bn(child) for child in node]) or found
    return found
