"""Training and testing a config: what ``tools/train.py`` and ``tools/test.py`` do, as functions."""

import os
import os.path as osp
from copy import deepcopy
from types import SimpleNamespace
from typing import Any, Dict, Optional, Union

from mmengine.config import Config, ConfigDict
from mmengine.device import get_device
from mmengine.registry import RUNNERS
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, Runner

from .checkpoint_checks import refuse_misfits
from .launch_checks import (
    LaunchError,
    check_batches,
    check_checkpoint,
    check_dataset,
    check_heads,
    explained,
    merge_options,
)
from .launch_distributed import LAUNCHERS, set_up_distributed, shut_down
from .linear_checks import check_linear

__all__ = [
    'LAUNCHERS',
    'LaunchError',
    'build_runner',
    'load_config',
    'shut_down',
    'test',
    'train',
]


def load_config(
    config: Union[str, 'os.PathLike[str]', Config],
    work_dir: Optional[str] = None,
    cfg_options: Optional[Dict[str, Any]] = None,
    launcher: str = 'none',
) -> Config:
    """Read a config and apply what the command line says.

    Args:
        config (str | PathLike | Config): Config file, or a loaded config (which is copied).
        work_dir (str, optional): Folder for logs and checkpoints. Defaults to the config's own
            ``work_dir``, else ``./work_dirs/<config name>``.
        cfg_options (dict, optional): Dotted keys and their new values, as MMEngine's
            ``--cfg-options`` gives them.
        launcher (str): 'none', 'pytorch', 'slurm' or 'mpi'. Defaults to 'none'.

    Returns:
        Config: The config to build a runner from.

    Raises:
        LaunchError: If the file does not exist or is not a config, if ``launcher`` is unknown, or
            if ``cfg_options`` holds a key that nothing would read.

    Example:
        >>> cfg = load_config('my.py', cfg_options={'train_cfg.max_epochs': 3})
    """
    if launcher not in LAUNCHERS:
        raise LaunchError(f'launcher is {launcher!r}, but must be one of {", ".join(LAUNCHERS)}.')
    if isinstance(config, Config):
        cfg, name = deepcopy(config), config.filename or 'config'
    else:
        name = os.fspath(config)
        if not osp.isfile(name):
            raise LaunchError(
                f'config file {name!r} does not exist (looked in {os.getcwd()}): give the path of '
                'a .py, .yaml or .json config.'
            )
        try:
            cfg = Config.fromfile(name)
        except FileNotFoundError as error:
            raise LaunchError(f'config {name!r} names a base file that is absent: {error}') from (
                error
            )
        except (SyntaxError, OSError) as error:
            raise LaunchError(f'config {name!r} cannot be read: {error}') from error
    if cfg_options:
        merge_options(cfg, cfg_options)
    cfg.launcher = launcher
    if work_dir is not None:
        cfg.work_dir = os.fspath(work_dir)
    elif cfg.get('work_dir') is None:
        cfg.work_dir = osp.join('./work_dirs', osp.splitext(osp.basename(name))[0])
    return cfg


def build_runner(cfg: Config) -> Runner:
    """Build MMEngine's runner, distributed if ``cfg.launcher`` says so.

    With GPUs this is ``Runner.from_cfg`` (nccl unless ``env_cfg.dist_cfg`` says otherwise). Without
    a GPU the processes are joined through gloo, the model is wrapped without device ids, and
    synchronised batch normalisation, which has no CPU version, becomes plain batch normalisation
    with a warning; the config needs no change.

    In every distributed run MMEngine's ``SyncBuffersHook`` is added if the config has none: with
    MMEngine's default ``broadcast_buffers=False`` the running statistics of batch normalisation
    differ between processes, so each process would validate a slightly different model and the
    checkpoint would hold only the first process's statistics.

    Args:
        cfg (Config): Config as :func:`load_config` returns it; it may be changed in place.

    Returns:
        Runner: A runner whose ``train()``, ``val()`` and ``test()`` are ready to call.

    Raises:
        LaunchError: If the launcher's environment variables are missing, if there are more
            processes than GPUs, or if ``load_from`` names a file that does not exist.
    """
    check_checkpoint(cfg.get('load_from'), 'load_from')
    if cfg.get('launcher', 'none') != 'none':
        set_up_distributed(cfg)
    if 'runner_type' in cfg:
        return RUNNERS.build(cfg)
    return Runner.from_cfg(cfg)


def train(
    config: Union[str, 'os.PathLike[str]', Config],
    work_dir: Optional[str] = None,
    amp: bool = False,
    auto_scale_lr: bool = False,
    resume: Optional[str] = None,
    cfg_options: Optional[Dict[str, Any]] = None,
    launcher: str = 'none',
) -> Runner:
    """Train a config and return the runner.

    Args:
        config (str | PathLike | Config): Config file, or a loaded config.
        work_dir (str, optional): Folder for logs and checkpoints, see :func:`load_config`.
        amp (bool): Train in mixed precision (needs a GPU). Defaults to False.
        auto_scale_lr (bool): Scale the learning rate with the total batch size, from the config's
            ``auto_scale_lr.base_batch_size``. Defaults to False.
        resume (str, optional): 'auto' continues from the latest checkpoint in the work directory
            (and starts afresh when there is none); a path continues from that checkpoint.
        cfg_options (dict, optional): Dotted config keys and their new values.
        launcher (str): 'none', 'pytorch', 'slurm' or 'mpi'. Defaults to 'none'.

    Returns:
        Runner: The runner after training: ``runner.model``, ``runner.work_dir`` …

    Raises:
        LaunchError: If the run cannot start; see also :func:`load_config`, :func:`build_runner`.

    Example:
        >>> from mmdet_contrast.utils.launch import train
        >>> runner = train('configs/retina_contrast_shapes.py', work_dir='work_dirs/try',
        ...                cfg_options={'train_cfg.max_epochs': 1})
    """
    _limit_dynamo_cache()
    cfg = load_config(config, work_dir, cfg_options, launcher)
    if cfg.get('train_cfg') is None or cfg.get('optim_wrapper') is None:
        raise LaunchError(
            f'config {cfg.filename!r} has no train_cfg or no optim_wrapper, so there is nothing to '
            'train: inherit from a schedule.'
        )
    if amp:
        _enable_amp(cfg)
    if get_device() == 'cpu' and cfg.optim_wrapper.get('type') == 'AmpOptimWrapper':
        raise LaunchError(
            'mixed precision (--amp, or AmpOptimWrapper in the config) needs a GPU and torch finds '
            'none: leave out --amp, or add --cfg-options optim_wrapper.type=OptimWrapper.'
        )
    if auto_scale_lr:
        scale = cfg.get('auto_scale_lr') or {}
        if 'enable' not in scale or 'base_batch_size' not in scale:
            raise LaunchError(
                '--auto-scale-lr needs auto_scale_lr=dict(enable=False, base_batch_size=…) in the '
                f'config, which has {"none" if not scale else dict(scale)}.'
            )
        cfg.auto_scale_lr.enable = True
    if resume == 'auto':
        cfg.resume = True
        cfg.load_from = None
    elif resume is not None:
        check_checkpoint(resume, '--resume')
        cfg.resume = True
        cfg.load_from = os.fspath(resume)
    with explained(cfg):
        runner = build_runner(cfg)
        dataset, is_linear = None, False
        if isinstance(runner, Runner):
            # The loops are built here, as ``train`` would, to see the data before the first epoch.
            dataset = _check_loop(runner.train_loop, 'train_dataloader')
            check_heads(runner.model, dataset, 'train_dataloader')
            val = _check_loop(runner.val_loop, 'val_dataloader')
            data = dict(train_dataloader=dataset, val_dataloader=val)
            is_linear = check_linear(runner.model, data)
        if cfg.get('resume'):
            refuse_misfits(runner, dataset, 'train_dataloader', exact=is_linear, training=True)
        runner.train()
    return runner


def test(
    config: Union[str, 'os.PathLike[str]', Config],
    checkpoint: str,
    work_dir: Optional[str] = None,
    out: Optional[str] = None,
    show: bool = False,
    show_dir: Optional[str] = None,
    wait_time: float = 2.0,
    tta: bool = False,
    cfg_options: Optional[Dict[str, Any]] = None,
    launcher: str = 'none',
) -> Dict[str, float]:
    """Evaluate a checkpoint on the config's test set.

    Args:
        config (str | PathLike | Config): Config file, or a loaded config.
        checkpoint (str): Checkpoint file or URL.
        work_dir (str, optional): Folder for the metrics, see :func:`load_config`.
        out (str, optional): Pickle file to write the predictions to.
        show (bool): Show the pictures in a window. Defaults to False.
        show_dir (str, optional): Folder for the drawn pictures; a relative one lies in
            ``work_dir/<time stamp>/``.
        wait_time (float): Seconds that each picture is shown. Defaults to 2.
        tta (bool): Test-time augmentation with the config's ``tta_model`` and ``tta_pipeline``;
            a config without them gets MMDetection's default (flip, NMS 0.5). Defaults to False.
        cfg_options (dict, optional): Dotted config keys and their new values.
        launcher (str): 'none', 'pytorch', 'slurm' or 'mpi'. Defaults to 'none'.

    Returns:
        dict[str, float]: Metric name → value.

    Raises:
        LaunchError: If the run cannot start; see also :func:`load_config`, :func:`build_runner`.
    """
    _limit_dynamo_cache()
    if out is not None and not out.endswith(('.pkl', '.pickle')):
        raise LaunchError(f'--out is {out!r}, but predictions go to a .pkl or .pickle file.')
    check_checkpoint(checkpoint, 'checkpoint')
    cfg = load_config(config, work_dir, cfg_options, launcher)
    if cfg.get('test_dataloader') is None or cfg.get('test_evaluator') is None:
        raise LaunchError(
            f'config {cfg.filename!r} has no test_dataloader or no test_evaluator, so there is '
            'nothing to test on.'
        )
    cfg.load_from = os.fspath(checkpoint)
    cfg.resume = False
    if show or show_dir:
        if 'visualization' not in cfg.get('default_hooks', {}):
            raise LaunchError(
                "--show and --show-dir need visualization=dict(type='DetVisualizationHook') in the "
                "config's default_hooks, which has none."
            )
        from mmdet.engine.hooks.utils import trigger_visualization_hook

        flags = SimpleNamespace(show=show, show_dir=show_dir, wait_time=wait_time)
        cfg = trigger_visualization_hook(cfg, flags)
    if tta:
        _enable_tta(cfg)
    with explained(cfg):
        runner = build_runner(cfg)
        dataset, is_linear = None, False
        if isinstance(runner, Runner):
            dataset = _check_loop(runner.test_loop, 'test_dataloader')
            is_linear = check_linear(runner.model, dict(test_dataloader=dataset))
        refuse_misfits(runner, dataset, 'test_dataloader', exact=is_linear)
        if out is not None:
            from mmdet.evaluation import DumpDetResults

            runner.test_evaluator.metrics.append(DumpDetResults(out_file_path=out))
        return runner.test()


# ``test`` is an entry point here, and pytest would take an import of it for a test case.
test.__test__ = False  # type: ignore[attr-defined]


def _check_loop(loop: Optional[BaseLoop], where: str) -> Any:
    """Check the data of a loop and return its data set; None where the loop has none."""
    dataset = getattr(getattr(loop, 'dataloader', None), 'dataset', None)
    if dataset is not None:
        check_dataset(dataset, where)
    if isinstance(loop, EpochBasedTrainLoop):
        check_batches(loop.dataloader, where)
    return dataset


def _limit_dynamo_cache() -> None:
    from mmdet.utils import setup_cache_size_limit_of_dynamo

    setup_cache_size_limit_of_dynamo()


def _enable_amp(cfg: Config) -> None:
    kind = cfg.optim_wrapper.get('type', 'OptimWrapper')
    if kind not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise LaunchError(
            f'--amp replaces OptimWrapper by AmpOptimWrapper, but the config uses {kind!r}: set '
            'its mixed precision in the config.'
        )
    cfg.optim_wrapper.type = 'AmpOptimWrapper'
    cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')


def _enable_tta(cfg: Config) -> None:
    if 'tta_model' not in cfg:
        nms = dict(type='nms', iou_threshold=0.5)
        cfg.tta_model = dict(type='DetTTAModel', tta_cfg=dict(nms=nms, max_per_img=100))
    dataset = cfg.test_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    if 'tta_pipeline' not in cfg:
        keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
        pack = dict(type='PackDetInputs', meta_keys=(*keys, 'flip', 'flip_direction'))
        flips = [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)]
        cfg.tta_pipeline = [
            *deepcopy(dataset.pipeline[:-1]),
            dict(type='TestTimeAug', transforms=[flips, [pack]]),
        ]
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    dataset.pipeline = cfg.tta_pipeline
