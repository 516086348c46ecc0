"""Testing a checkpoint: what ``tools/test.py`` does, as a function."""

import os
from copy import deepcopy
from types import SimpleNamespace
from typing import Any, Dict, Optional, Union

from mmdet.engine.hooks.utils import trigger_visualization_hook
from mmdet.evaluation import DumpDetResults
from mmdet.utils import setup_cache_size_limit_of_dynamo
from mmengine.config import Config, ConfigDict

from mmdet_contrast.utils.config import dataset_chain, load_config
from mmdet_contrast.utils.safe_loading import trust_checkpoints

from .launch import build_runner


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
    trust_checkpoint: bool = False,
) -> Dict[str, float]:
    """Evaluate a checkpoint on the config's test set.

    Args:
        config (str | PathLike | Config): Config file, or a loaded config.
        checkpoint (str): Checkpoint file or URL.
        work_dir (str, optional): Folder for the metrics. Defaults to the config's own, or
            ``./work_dirs/<config name>``.
        out (str, optional): Pickle file to write the predictions to.
        show (bool): Show the pictures in a window.
        show_dir (str, optional): Folder for the drawn pictures; a relative one lies in
            ``work_dir/<time stamp>/``.
        wait_time (float): Seconds that each picture is shown.
        tta (bool): Test-time augmentation with the config's ``tta_model`` and ``tta_pipeline``;
            a config without them gets MMDetection's default (flip, NMS 0.5).
        cfg_options (dict, optional): Dotted config keys and their new values.
        launcher (str): 'none', 'pytorch', 'slurm' or 'mpi'.
        trust_checkpoint (bool): Load checkpoints with objects of any class, which can run any code.

    Returns:
        dict[str, float]: Metric name → value.

    Raises:
        LaunchError: If the run cannot start.
    """
    setup_cache_size_limit_of_dynamo()
    cfg = load_config(config, work_dir, cfg_options, launcher)
    cfg.load_from = os.fspath(checkpoint)
    cfg.resume = False
    if show or show_dir:
        flags = SimpleNamespace(show=show, show_dir=show_dir, wait_time=wait_time)
        cfg = trigger_visualization_hook(cfg, flags)
    if tta:
        _enable_tta(cfg)
    with trust_checkpoints(trust_checkpoint):
        runner = build_runner(cfg)
        if out is not None:
            runner.test_evaluator.metrics.append(DumpDetResults(out_file_path=out))
        return runner.test()


# ``test`` is an entry point here, and pytest would take an import of it for a test case.
test.__test__ = False  # type: ignore[attr-defined]


def _enable_tta(cfg: Config) -> None:
    if 'tta_model' not in cfg:
        nms = dict(type='nms', iou_threshold=0.5)
        cfg.tta_model = dict(type='DetTTAModel', tta_cfg=dict(nms=nms, max_per_img=100))
    dataset = dataset_chain(cfg.test_dataloader.dataset)[-1]
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
