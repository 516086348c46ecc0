"""Checks of what a config says about loaders, optimizer, hooks and the best checkpoint."""

import inspect
from typing import Any, Dict, List, Optional, Sequence

from mmdet.engine.hooks import PipelineSwitchHook
from mmdet.evaluation.metrics import CocoMetric
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.hooks import CheckpointHook, Hook
from mmengine.registry import EVALUATOR, METRICS, OPTIMIZERS, TRANSFORMS
from torch import nn
from torch.utils.data import DataLoader

from mmdet_contrast.datasets.transforms import PackContrastiveInputs
from mmdet_contrast.models.contrast import RegionContrast
from mmdet_contrast.utils.config import LaunchError

from .registered import find_type, suggest

# What MMEngine's ``build_dataloader`` takes out before it calls torch's ``DataLoader``.
_LOADER_KEYS = ('num_batch_per_epoch', 'disable_subprocess_warning')
_COCO_ITEMS = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l')


def check_loader(loader: Any, where: str) -> None:
    """Refuse a key that no data loader takes; a loader that is already built passes."""
    known = [*inspect.signature(DataLoader).parameters, *_LOADER_KEYS]
    for key in loader if isinstance(loader, dict) else ():
        if key not in known:
            raise LaunchError(
                f'{where} has the key {key!r}, which no loader takes{suggest(key, known)}'
            )


def check_optimizer(optim_wrapper: Any) -> None:
    """Refuse an optimizer that is not registered, which MMEngine takes for None and calls."""
    optimizer = optim_wrapper.get('optimizer') if isinstance(optim_wrapper, dict) else None
    kind = optimizer.get('type') if isinstance(optimizer, dict) else None
    if kind is not None and find_type(OPTIMIZERS, kind) is None:
        raise LaunchError(
            f'optim_wrapper.optimizer.type={kind!r} is not registered as optimizer'
            f'{suggest(kind, OPTIMIZERS.module_dict)}'
        )


def check_save_best(hooks: Sequence[Hook], evaluator: Any) -> None:
    """Refuse a ``save_best`` that no metric of the validation returns.

    Metrics whose names cannot be known before they have run pass.
    """
    # for each metric the beginning of its names, and all of its names where they are known
    returned: Dict[str, Optional[List[str]]] = {}
    for metric in metric_configs(evaluator):
        kind = find_type(METRICS, metric.get('type'))
        prefix = metric.get('prefix') or getattr(kind, 'default_prefix', None)
        if not prefix or getattr(kind, 'evaluate', None) is not BaseMetric.evaluate:
            return
        names = _coco_names(kind, metric, prefix)
        others = returned.get(prefix, [])
        returned[prefix] = None if names is None or others is None else [*others, *names]
    saving = [hook for hook in hooks if isinstance(hook, CheckpointHook) and hook.save_best]
    for key in [key for hook in saving if returned for key in hook.key_indicators]:
        own = returned.get(key.split('/')[0], [])
        if key == 'auto' or own is None or key in own or (own and key.endswith('_precision')):
            continue
        known = [name for names in returned.values() for name in names or ()]
        known += [f'{prefix}/{key}' for prefix, names in returned.items() if names is None]
        near = [name for name in known if name.endswith(f'/{key}')]
        raise LaunchError(
            f'save_best={key!r} of CheckpointHook is returned by no metric of val_evaluator, '
            f'whose names begin with {" or ".join(f"{prefix}/" for prefix in returned)}'
            f'{suggest(near[0] if near else key, known)}'
        )


def check_switched_pipelines(hooks: Sequence[Hook], model: nn.Module) -> None:
    """Refuse a pipeline for later epochs that lacks the views with which the model compares."""
    branches = [module for module in model.modules() if isinstance(module, RegionContrast)]
    if not any(branch.wants_views for branch in branches):
        return
    for hook in hooks:
        # configs: the hook builds them at its epoch
        last = hook.switch_pipeline[-1] if isinstance(hook, PipelineSwitchHook) else None
        kind = find_type(TRANSFORMS, last.get('type')) if isinstance(last, dict) else type(last)
        if last and not (isinstance(kind, type) and issubclass(kind, PackContrastiveInputs)):
            raise LaunchError(
                'PipelineSwitchHook: the contrastive loss compares with views, but switch_pipeline '
                'makes none: end it with ContrastiveView and PackContrastiveInputs.'
            )


def metric_configs(evaluator: Any) -> List[Any]:
    """List the configs of the metrics of an evaluator that gives each of them all data.

    Args:
        evaluator (Any): ``val_evaluator`` or ``test_evaluator`` of a config.

    Returns:
        list[dict]: The configs; nothing if one of the metrics is built already, or of evaluators
        like ``MultiDatasetsEvaluator``, whose metrics have a part of the data each.
    """
    if isinstance(evaluator, dict):
        kind = evaluator.get('type') if 'metrics' in evaluator else None
        if kind is not None and find_type(EVALUATOR, kind) is not Evaluator:
            return []
        evaluator = evaluator.get('metrics', [evaluator])
    found = evaluator if isinstance(evaluator, (list, tuple)) else [evaluator]
    return list(found) if all(isinstance(metric, dict) for metric in found) else []


def _coco_names(kind: type, metric: Dict[str, Any], prefix: str) -> Optional[List[str]]:
    """List what ``CocoMetric`` returns, but for single classes; None if that is not known."""
    given = metric.get('metric', 'bbox')
    given = given if isinstance(given, (list, tuple)) else [given]
    if kind is not CocoMetric or not set(given) <= {'bbox', 'segm'}:
        return None
    items = metric.get('metric_items') or _COCO_ITEMS
    return [f'{prefix}/{name}_{item}' for name in given for item in items]
