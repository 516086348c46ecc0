"""Training a config: what ``tools/train.py`` does, as a function."""

import os
from typing import Any, Dict, Optional, Union

from mmdet.utils import setup_cache_size_limit_of_dynamo
from mmengine.config import Config
from mmengine.runner import Runner

from mmdet_contrast.utils.checkpoint import find_resumable
from mmdet_contrast.utils.config import LaunchError, load_config, type_name
from mmdet_contrast.utils.safe_loading import trust_checkpoints

from .launch import build_runner


def train(
    config: Union[str, 'os.PathLike[str]', Config],
    work_dir: Optional[str] = None,
    amp: bool = False,
    auto_scale_lr: bool = False,
    resume: Optional[str] = None,
    cfg_options: Optional[Dict[str, Any]] = None,
    launcher: str = 'none',
    trust_checkpoint: bool = False,
) -> Runner:
    """Train a config and return the runner.

    Args:
        config (str | PathLike | Config): Config file, or a loaded config.
        work_dir (str, optional): Folder for logs and checkpoints. Defaults to the config's own, or
            ``./work_dirs/<config name>``.
        amp (bool): Train in mixed precision, which needs a GPU.
        auto_scale_lr (bool): Scale the learning rate with the total batch size, from the config's
            ``auto_scale_lr.base_batch_size``.
        resume (str, optional): 'auto' continues from the latest checkpoint in the work directory
            (and starts as without it when there is none); a path continues from that checkpoint.
        cfg_options (dict, optional): Dotted config keys and their new values.
        launcher (str): 'none', 'pytorch', 'slurm' or 'mpi'.
        trust_checkpoint (bool): Load checkpoints with objects of any class, which can run any code.

    Returns:
        Runner: The runner after training: ``runner.model``, ``runner.work_dir`` …

    Raises:
        LaunchError: If the run cannot start.

    Example:
        >>> from mmdet_contrast.apis import train
        >>> runner = train('configs/contrast/retina_contrast_shapes.py', work_dir='work_dirs/try',
        ...                cfg_options={'train_cfg.max_epochs': 1})
    """
    setup_cache_size_limit_of_dynamo()
    cfg = load_config(config, work_dir, cfg_options, launcher)
    if amp:
        _enable_amp(cfg)
    if auto_scale_lr:
        if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
            raise LaunchError(
                '--auto-scale-lr: the config lacks auto_scale_lr=dict(base_batch_size=…), the '
                'batch size that its learning rate is for.'
            )
        cfg.auto_scale_lr.enable = True
    if resume == 'auto':
        # without one the run starts, from load_from if the config has it
        resume = find_resumable(cfg.work_dir)
    if resume is not None:
        cfg.resume, cfg.load_from = True, os.fspath(resume)
    with trust_checkpoints(trust_checkpoint):
        runner = build_runner(cfg)
        runner.train()
    return runner


def _enable_amp(cfg: Config) -> None:
    kind = type_name(cfg.optim_wrapper.get('type', 'OptimWrapper'))
    if kind not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise LaunchError(
            f'--amp replaces OptimWrapper by AmpOptimWrapper, but the config uses {kind!r}: set '
            'its mixed precision in the config.'
        )
    cfg.optim_wrapper.type = 'AmpOptimWrapper'
    cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
