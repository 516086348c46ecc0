"""YOLOv8 as a detector of MMDetection."""

from typing import Optional

from mmdet.models.detectors import SingleStageDetector
from mmdet.registry import MODELS
from mmdet.utils import ConfigType, OptConfigType, OptMultiConfig

from ..layers.yolov8 import YOLOV8_SCALES


@MODELS.register_module()
class YOLOv8Detector(SingleStageDetector):
    """YOLOv8: ``SingleStageDetector`` that knows the published sizes.

    Args:
        backbone (dict): Config of the backbone.
        neck (dict): Config of the neck.
        bbox_head (dict): Config of the head.
        scale (str, optional): ``'n'``, ``'s'``, ``'m'``, ``'l'`` or ``'x'``: sets depth and width
            of ``YOLOv8CSPDarknet``, neck and head, see ``YOLOV8_SCALES``; a factor in the config
            of a part takes precedence. None for another backbone.
        train_cfg (dict, optional): Of the head.
        test_cfg (dict, optional): Of the head.
        data_preprocessor (dict, optional): Config of the data preprocessor.
        init_cfg (dict, optional): Initialisation.
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
            deepen, widen, last = YOLOV8_SCALES[scale]
            factors = dict(deepen_factor=deepen, widen_factor=widen)
            channels = [256, 512, last]
            # what the config of a part sets comes last, and counts
            backbone = {**factors, 'last_stage_out_channels': last, **backbone}
            neck = {**factors, 'in_channels': channels, **neck}
            bbox_head = {'in_channels': channels, 'widen_factor': widen, **bbox_head}
        super().__init__(
            backbone=backbone,
            neck=neck,
            bbox_head=bbox_head,
            train_cfg=train_cfg,
            test_cfg=test_cfg,
            data_preprocessor=data_preprocessor,
            init_cfg=init_cfg,
        )
