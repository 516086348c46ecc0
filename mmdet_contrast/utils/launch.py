"""Training and testing a config: what ``tools/train.py`` and ``tools/test.py`` do, as functions."""

import difflib
import inspect
import os
import os.path as osp
import warnings
from copy import deepcopy
from types import SimpleNamespace
from typing import Any, Dict, Optional, Union

import torch
from mmengine.config import Config, ConfigDict
from mmengine.device import get_device
from mmengine.dist import barrier, init_dist, is_distributed
from mmengine.registry import MODEL_WRAPPERS, RUNNERS
from mmengine.runner import Runner
from mmengine.utils.dl_utils import set_multi_processing
from torch.nn.parallel import DistributedDataParallel

from mmdet_contrast.compat import without_cuda_device

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

# Top-level keys that MMEngine, MMDetection or this module read although ``Runner`` has no
# parameter of that name.
_EXTRA_KEYS = (
    'auto_scale_lr',
    'compile',
    'custom_imports',
    'find_unused_parameters',
    'model_wrapper_cfg',
    'runner_type',
    'sync_bn',
    'tta_model',
    'tta_pipeline',
)

_SYNC_BN_TYPES = ('SyncBN', 'MMSyncBN')


class LaunchError(ValueError):
    """A run that cannot start; the message is one sentence that says what to change."""


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
        _merge_options(cfg, cfg_options)
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
    _check_checkpoint(cfg.get('load_from'), 'load_from')
    if cfg.get('launcher', 'none') != 'none':
        _set_up_distributed(cfg)
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
        _check_checkpoint(resume, '--resume')
        cfg.resume = True
        cfg.load_from = os.fspath(resume)
    runner = build_runner(cfg)
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
    _check_checkpoint(checkpoint, 'checkpoint')
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
    runner = build_runner(cfg)
    if out is not None:
        from mmdet.evaluation import DumpDetResults

        runner.test_evaluator.metrics.append(DumpDetResults(out_file_path=out))
    return runner.test()


# ``test`` is an entry point here, and pytest would take an import of it for a test case.
test.__test__ = False  # type: ignore[attr-defined]


def shut_down() -> None:
    """Leave the process group at the end of a program; does nothing outside of one.

    A process that exits with gloo's threads still running may be aborted although it has finished.
    """
    if is_distributed():
        barrier()
        torch.distributed.destroy_process_group()


def _limit_dynamo_cache() -> None:
    from mmdet.utils import setup_cache_size_limit_of_dynamo

    setup_cache_size_limit_of_dynamo()


def _merge_options(cfg: Config, options: Dict[str, Any]) -> None:
    """Merge dotted options, refusing a key that nothing reads (a typo would change nothing)."""
    runner_keys = [key for key in inspect.signature(Runner.__init__).parameters if key != 'self']
    known = sorted({*cfg.keys(), *runner_keys, *_EXTRA_KEYS})
    for key in options:
        top = key.split('.')[0]
        if top not in known:
            close = difflib.get_close_matches(top, known, n=1)
            hint = f'did you mean {close[0]!r}?' if close else f'the config has: {sorted(cfg)}.'
            raise LaunchError(
                f'--cfg-options key {key!r}: the config has no {top!r} and nothing reads it; {hint}'
            )
    try:
        cfg.merge_from_dict(options)
    except (KeyError, TypeError, IndexError, AssertionError) as error:
        text = error.args[0] if error.args else error
        raise LaunchError(
            f'--cfg-options {sorted(options)} cannot be merged into the config: {text}'
        ) from error


def _check_checkpoint(path: Optional[str], what: str) -> None:
    """Refuse a local checkpoint that is not there (``scheme://`` addresses are not looked at)."""
    if path is None:
        return
    path = os.fspath(path)
    if '://' not in path and not osp.isfile(path):
        raise LaunchError(
            f'{what} {path!r} does not exist (looked in {os.getcwd()}): give the path of a '
            'checkpoint (.pth).'
        )


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


def _set_up_distributed(cfg: Config) -> None:
    """Check the launcher, join the processes on a machine without a GPU, and adapt the config."""
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
            kind = node.get('type')
            if isinstance(kind, str) and kind.split('.')[-1] in _SYNC_BN_TYPES:
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
