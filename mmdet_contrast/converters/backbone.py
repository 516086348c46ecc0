"""The backbone of a checkpoint as a file of its own."""

from typing import List, Mapping, NamedTuple, Optional

from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import Tensor

from mmdet_contrast.utils.checkpoint import check_weights
from mmdet_contrast.utils.model import model_section

from .coco import ConversionError
from .keys import describe_prefixes, read_weights, save_weights


class ExportReport(NamedTuple):
    """What :func:`export_backbone` did.

    Attributes:
        target (str): The file that was written.
        kept (List[str]): Names of the weights in it, without the prefix.
        dropped (List[str]): Names of the weights that were left out.
        checked (str): The config whose backbone takes every weight; empty without one.
    """

    target: str
    kept: List[str]
    dropped: List[str]
    checked: str = ''

    def __str__(self) -> str:
        lines = [
            f'{self.target}: {len(self.kept)} weights of the backbone, {len(self.dropped)} others '
            'left out'
        ]
        if self.checked:
            lines.append(f'all of them, and no others, fit the backbone of {self.checked}')
        lines.append(
            f"use: model=dict(backbone=dict(init_cfg=dict(type='Pretrained', "
            f'checkpoint={self.target!r})))'
        )
        return '\n'.join(lines)


def export_backbone(
    source: str, target: str, prefix: str = 'backbone', config: Optional[Config] = None
) -> ExportReport:
    """Write the backbone of a checkpoint for ``init_cfg=dict(type='Pretrained', checkpoint=...)``.

    Works with a checkpoint of ``SimSiam`` or ``SimCLR`` as with that of any detector.

    Args:
        source (str): Checkpoint of training, or file of a plain state_dict.
        target (str): File to write: the weights, named as in the backbone, and ``meta``.
        prefix (str): Name of the backbone in the checkpoint. Defaults to ``'backbone'``.
        config (Config, optional): Config of the detector that shall start from the file; of
            distillation, its student. It is built and its backbone compared before anything is
            written.

    Returns:
        ExportReport: What was written.

    Raises:
        FileNotFoundError: If ``source`` does not exist.
        LaunchError: If it holds no weights below ``prefix``, or they do not fit ``config``.

    Example:
        >>> print(export_backbone('work_dirs/simsiam/epoch_100.pth', 'backbone.pth'))
    """
    weights, meta, _ = read_weights(source)
    prefix = prefix.rstrip('.') + '.'
    kept = {key[len(prefix) :]: value for key, value in weights.items() if key.startswith(prefix)}
    if not kept:
        raise ConversionError(
            f'{source!r} has no weights below {prefix!r}; its keys begin with '
            f'{describe_prefixes(weights)}: give the name of the backbone.'
        )
    if config is not None:
        _require_fit(kept, config)
    save_weights(kept, meta, target)
    dropped = [key for key in weights if not key.startswith(prefix)]
    return ExportReport(target, list(kept), dropped, config.filename if config else '')


def _require_fit(weights: Mapping[str, Tensor], config: Config) -> None:
    """Refuse weights of another backbone than the config's."""
    model = config.model
    if model.get('student') is not None:
        model = model_section(model['student'])
    if 'teacher_ckpt' in model:
        # the teachers of MMDetection's own distillation are loaded, or downloaded, when built
        model = {**model, 'teacher_ckpt': None}
    init_default_scope(config.get('default_scope', 'mmdet'))
    # not the backbone alone: a detector may change its config, as YOLOv8Detector does with `scale`
    backbone = MODELS.build(model).backbone
    check_weights(backbone, dict(state_dict=weights), training=True)
    extra = [key for key in weights if key not in backbone.state_dict()]
    if extra:
        raise ConversionError(
            f'the backbone of {config.filename!r} has no {extra[0]!r} ({len(extra)} such weights '
            'in the checkpoint): pre-train the backbone that the detector has.'
        )
