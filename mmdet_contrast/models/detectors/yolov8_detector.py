"""YOLOv8 as a detector of MMDetection."""

from typing import Optional

from mmdet.models.detectors import SingleStageDetector
from mmdet.registry import MODELS
from mmdet.utils import ConfigType, OptConfigType, OptMultiConfig

from mmdet_contrast.utils.type_name import type_name

from ..layers.yolov8_scale import YOLOV8_SCALES


@MODELS.register_module()
class YOLOv8Detector(SingleStageDetector):
    """YOLOv8: ``SingleStageDetector`` that knows the published sizes.

    Args:
        backbone (dict): Config of the backbone.
        neck (dict): Config of the neck.
        bbox_head (dict): Config of the head.
        scale (str, optional): ``'n'``, ``'s'``, ``'m'``, ``'l'`` or ``'x'``: sets depth and width
            of ``YOLOv8CSPDarknet``, neck and head, see ``YOLOV8_SCALES``. None leaves them as they
            are given.
        train_cfg (dict, optional): Of the head.
        test_cfg (dict, optional): Of the head.
        data_preprocessor (dict, optional): Config of the data preprocessor.
        init_cfg (dict, optional): Initialisation.

    Raises:
        ValueError: If the size is unknown, contradicts a factor that is given, or is set with
            another backbone; or if backbone, neck and head do not fit.
    """

    def __init__(
        self,
        backbone: ConfigType,
        neck: ConfigType,
        bbox_head: ConfigType,
        scale: Optional[str] = None,
        train_cfg: OptConfigType = None,
        test_cfg: OptConfigType = None,
        data_preprocessor: OptConfigType = None,
        init_cfg: OptMultiConfig = None,
    ) -> None:
        if scale is not None:
            backbone, neck, bbox_head = _apply_scale(scale, backbone, neck, bbox_head)
        super().__init__(
            backbone=backbone,
            neck=neck,
            bbox_head=bbox_head,
            train_cfg=train_cfg,
            test_cfg=test_cfg,
            data_preprocessor=data_preprocessor,
            init_cfg=init_cfg,
        )
        parts = (
            ('backbone', getattr(self.backbone, 'out_channels', None)),
            ('neck', getattr(self.neck, 'in_channels', None)),
            ('neck', getattr(self.neck, 'out_channels', None)),
            ('bbox_head', getattr(self.bbox_head, 'in_channels', None)),
        )
        for (giver, given), (taker, taken) in (parts[:2], parts[2:]):
            if given is None or taken is None or isinstance(given, int) or isinstance(taken, int):
                continue
            if tuple(given) != tuple(taken):
                raise ValueError(
                    f'The {giver} gives {tuple(given)} channels and the {taker} takes '
                    f'{tuple(taken)}: give both the same widen_factor and '
                    "last_stage_out_channels, or set model.scale to 'n', 's', 'm', 'l' or 'x'."
                )


def _apply_scale(scale: str, backbone: dict, neck: dict, bbox_head: dict) -> tuple:
    """Return copies of the configs with the factors of a size."""
    if scale not in YOLOV8_SCALES:
        raise ValueError(
            f'YOLOv8Detector got scale={scale!r}, one of {tuple(YOLOV8_SCALES)} expected.'
        )
    if type_name(backbone.get('type')) != 'YOLOv8CSPDarknet':
        raise ValueError(
            f'YOLOv8Detector got scale={scale!r} with the backbone {backbone.get("type")}, whose '
            'channels it does not know: set scale=None, and in_channels, deepen_factor and '
            'widen_factor of neck and head.'
        )
    deepen, widen, last = YOLOV8_SCALES[scale]
    channels = [256, 512, last]
    filled = []
    for name, part, values in (
        (
            'backbone',
            backbone,
            dict(deepen_factor=deepen, widen_factor=widen, last_stage_out_channels=last),
        ),
        ('neck', neck, dict(in_channels=channels, deepen_factor=deepen, widen_factor=widen)),
        ('bbox_head', bbox_head, dict(in_channels=channels, widen_factor=widen)),
    ):
        for key, value in values.items():
            if key in part and part[key] != value:
                raise ValueError(
                    f'YOLOv8Detector got scale={scale!r}, which means {name}.{key}={value}, and '
                    f'{name}.{key}={part[key]}: remove the one that is not meant.'
                )
        filled.append({**part, **values})
    return tuple(filled)
