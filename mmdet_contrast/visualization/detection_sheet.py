"""A sheet of ground truth and detections from a file of predictions."""

from typing import Union

import mmcv
import numpy as np
import torch
from mmdet.registry import DATASETS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.fileio import load
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

from mmdet_contrast.engine.run_checks import check_dataset, completed_data
from mmdet_contrast.utils.config import LaunchError, load_config
from mmdet_contrast.utils.files import PathLike

from .canvas import grid, save_picture
from .detection_painter import draw_detections


def save_detection_sheet(
    config: Union[PathLike, Config],
    predictions: str,
    out_file: str,
    num: int = 8,
    score_thr: float = 0.3,
    iou_thr: float = 0.5,
) -> str:
    """Draw ground truth and detections of test images on one sheet.

    For a picture of every test image there is ``DetectionPainter`` with ``--show-dir``.

    Args:
        config (str | PathLike | Config): Config whose test set was evaluated.
        predictions (str): Pickle file written by ``mim test mmdet … --out`` or
            ``tools/test.py … --out``.
        out_file (str): PNG to write; its folder is made if absent.
        num (int): Number of images, spread evenly over the test set. Defaults to 8.
        score_thr (float): See :func:`draw_detections`. Defaults to 0.3.
        iou_thr (float): See :func:`draw_detections`. Defaults to 0.5.

    Returns:
        str: ``out_file``.

    Raises:
        LaunchError: If the predictions are not those of the config's test set.
    """
    cfg = load_config(config)
    found = {result['img_id']: result['pred_instances'] for result in load(predictions)}
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    with completed_data(dict(test_dataloader=cfg.test_dataloader)):
        dataset = DATASETS.build(cfg.test_dataloader.dataset)
        check_dataset(dataset, 'test_dataloader')
    pictures = []
    for index in np.linspace(0, len(dataset) - 1, min(num, len(dataset))).round().astype(int):
        info = dataset.get_data_info(index)
        if info['img_id'] not in found:
            raise LaunchError(
                f'{predictions!r} has no result for image {info["img_id"]} of the test set: give '
                'the config that the predictions were made with.'
            )
        image = mmcv.imread(
            info['img_path'], channel_order='rgb', backend_args=dataset.backend_args
        )
        if image is None:
            raise LaunchError(f'{info["img_path"]!r} of the test set is not a readable image.')
        sample = DetDataSample(
            gt_instances=_instances(info, False),
            ignored_instances=_instances(info, True),
            pred_instances=InstanceData(**found[info['img_id']]),
        )
        classes = dataset.metainfo['classes']
        pictures.append(draw_detections(image, sample, classes, score_thr, iou_thr))
    save_picture(grid(pictures, columns=2), out_file)
    return out_file


def _instances(info: dict, ignored: bool) -> InstanceData:
    """Collect the annotated boxes of an image that count, or those that do not."""
    chosen = [item for item in info['instances'] if bool(item['ignore_flag']) == ignored]
    boxes = torch.tensor([item['bbox'] for item in chosen], dtype=torch.double).reshape(-1, 4)
    labels = torch.tensor([item['bbox_label'] for item in chosen], dtype=torch.long)
    return InstanceData(bboxes=boxes, labels=labels)
