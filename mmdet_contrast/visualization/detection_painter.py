"""Visualizer that shows in one picture which detections are right."""

from typing import Any, Dict, Optional

import mmcv
import numpy as np
from mmdet.registry import VISUALIZERS
from mmdet.structures import DetDataSample
from mmdet.visualization import DetLocalVisualizer
from mmengine.dist import master_only

from mmdet_contrast.visualization.detection_picture import draw_detections

_NOT_BOXES = ('gt_sem_seg', 'gt_panoptic_seg', 'pred_sem_seg', 'pred_panoptic_seg')


@VISUALIZERS.register_module()
class DetectionPainter(DetLocalVisualizer):
    """Paint ground truth purple, correct detections green and wrong ones yellow, in one picture.

    It takes the place of ``DetLocalVisualizer``, which puts ground truth and detections side by
    side and leaves the comparison to the reader. MMDetection's ``DetVisualizationHook`` uses it
    unchanged, in validation (``draw=True``) and with ``--show-dir``. What is drawn how:
    :func:`mmdet_contrast.visualization.draw_detections`. Only boxes are drawn; of instance
    segmentation, the boxes of the instances.

    Ground truth comes from the test pipeline's ``LoadAnnotations``, which stands after ``Resize``
    in MMDetection's configs, so that boxes are in pixels of the original image. Where the pipeline
    loads none, detections are blue, for there is nothing to judge them by.

    Args:
        name (str): Name of the instance. Defaults to 'visualizer'.
        image (ndarray, optional): (H, W, 3) uint8 RGB image to begin with.
        vis_backends (list, optional): Configs of the backends.
        save_dir (str, optional): Folder of the backends.
        iou_thr (float): Least IoU of a correct detection, in (0, 1]. Defaults to 0.5.
        min_side (int): Smaller images are enlarged by a whole factor until their longer side
            reaches this many pixels. Defaults to 640.
        line_width (int, optional): In pixels of the picture. Grows with the picture by default.
        font_size (int, optional): In pixels of the picture. Grows with the picture by default.

    Raises:
        ValueError: If ``iou_thr`` is out of range.

    Example:
        >>> # in a config
        >>> visualizer = dict(
        ...     type='DetectionPainter',
        ...     name='visualizer',
        ...     vis_backends=[dict(type='LocalVisBackend')],
        ... )
        >>> default_hooks = dict(visualization=dict(type='DetVisualizationHook', draw=True))
    """

    def __init__(
        self,
        name: str = 'visualizer',
        image: Optional[np.ndarray] = None,
        vis_backends: Optional[list] = None,
        save_dir: Optional[str] = None,
        iou_thr: float = 0.5,
        min_side: int = 640,
        line_width: Optional[int] = None,
        font_size: Optional[int] = None,
    ) -> None:
        if not 0 < iou_thr <= 1:
            raise ValueError(f'iou_thr is {iou_thr}, but an IoU threshold lies in (0, 1].')
        super().__init__(name=name, image=image, vis_backends=vis_backends, save_dir=save_dir)
        self.iou_thr = iou_thr
        self.min_side = min_side
        self.line_width = line_width
        self.font_size = font_size

    @master_only
    def add_datasample(
        self,
        name: str,
        image: np.ndarray,
        data_sample: Optional[DetDataSample] = None,
        draw_gt: bool = True,
        draw_pred: bool = True,
        show: bool = False,
        wait_time: float = 0,
        out_file: Optional[str] = None,
        pred_score_thr: float = 0.3,
        step: int = 0,
    ) -> None:
        """Paint one image, and show it, write it to a file or hand it to the backends.

        Args:
            name (str): Name of the picture.
            image (ndarray): (H, W, 3) RGB image.
            data_sample (DetDataSample, optional): With ``gt_instances``, ``ignored_instances`` and
                ``pred_instances``, as far as there are any. None leaves the image as it is.
            draw_gt (bool): Whether to draw and to judge by the ground truth. Defaults to True.
            draw_pred (bool): Whether to draw the detections. Defaults to True.
            show (bool): Whether to open a window. Defaults to False.
            wait_time (float): Seconds to show it for; 0 waits for a key. Defaults to 0.
            out_file (str, optional): File to write. Without it the picture goes to the backends.
            pred_score_thr (float): Detections with a lower score are left out. Defaults to 0.3.
            step (int): Step that the backends record. Defaults to 0.

        Raises:
            ValueError: If the sample holds segmentation maps, which have no boxes.
        """
        picture = image.clip(0, 255).astype(np.uint8)
        if data_sample is not None:
            maps = [key for key in _NOT_BOXES if key in data_sample]
            if maps:
                raise ValueError(
                    f'the sample holds {", ".join(maps)}, but DetectionPainter draws boxes only: '
                    "set visualizer=dict(type='DetLocalVisualizer', ...)."
                )
            picture = draw_detections(
                picture,
                **_collect(data_sample.cpu(), draw_gt, draw_pred),
                classes=self.dataset_meta.get('classes'),
                score_thr=pred_score_thr,
                min_panel=self.min_side,
                iou_thr=self.iou_thr,
                line_width=self.line_width,
                font_size=self.font_size,
            )
        self.set_image(picture)
        if show:
            self.show(picture, win_name=name, wait_time=wait_time)
        if out_file is not None:
            mmcv.imwrite(picture[..., ::-1], out_file)
        else:
            self.add_image(name, picture, step)


def _collect(sample: DetDataSample, draw_gt: bool, draw_pred: bool) -> Dict[str, Any]:
    """The boxes of a sample, as the arguments of ``draw_detections``."""
    found: Dict[str, Any] = dict.fromkeys(
        ('gt_bboxes', 'gt_labels', 'bboxes', 'labels', 'scores', 'ignored_bboxes', 'ignored_labels')
    )
    if draw_gt and 'gt_instances' in sample:
        found.update(_arrays(sample.gt_instances, 'gt_'))
        if 'ignored_instances' in sample:
            found.update(_arrays(sample.ignored_instances, 'ignored_'))
    if draw_pred and 'pred_instances' in sample:
        found.update(_arrays(sample.pred_instances, ''))
        found['scores'] = sample.pred_instances.scores.float().numpy()
    return found


def _arrays(instances: Any, prefix: str) -> Dict[str, np.ndarray]:
    boxes = instances.get('bboxes')
    if boxes is None:
        return {}
    boxes = getattr(boxes, 'tensor', boxes)
    arrays = {f'{prefix}bboxes': boxes.detach().float().numpy().reshape(-1, 4)}
    if 'labels' in instances:
        arrays[f'{prefix}labels'] = instances.labels.numpy()
    return arrays
