"""Pictures of ground truth and detections from a file of predictions."""

import os.path as osp
from typing import Any, Iterator, List, Optional, Tuple, Union

import mmcv
import numpy as np
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.fileio import load
from mmengine.registry import init_default_scope

from mmdet_contrast.engine.run_checks import check_dataset
from mmdet_contrast.utils.config import LaunchError, load_config
from mmdet_contrast.utils.files import PathLike

from .canvas import grid, save_picture
from .detection_painter import draw_detections


def save_detection_sheet(
    config: Union[PathLike, Config],
    predictions: str,
    out_file: str,
    num: Optional[int] = 8,
    columns: int = 2,
    **options: Any,
) -> str:
    """Draw ground truth and detections of test images on one sheet.

    Args:
        config (str | PathLike | Config): Config whose test set was evaluated.
        predictions (str): Pickle file written by ``mim test mmdet … --out`` or
            ``tools/test.py … --out``.
        out_file (str): PNG to write; its folder is made if absent.
        num (int, optional): Number of images, spread evenly over the test set. Defaults to 8.
        columns (int): Images per row. Defaults to 2.
        options: ``score_thr``, ``iou_thr`` and ``min_side`` of :func:`draw_detections`.

    Returns:
        str: ``out_file``.

    Raises:
        LaunchError: If the predictions are not those of the config's test set.
    """
    pictures = [picture for _, picture in _draw(config, predictions, num, options)]
    save_picture(grid(pictures, columns), out_file)
    return out_file


def save_detection_pictures(
    config: Union[PathLike, Config],
    predictions: str,
    out_dir: str,
    num: Optional[int] = None,
    **options: Any,
) -> List[str]:
    """Draw ground truth and detections of each test image in a picture of its own.

    The pictures bear the names of the images. Images from several folders keep the folders below
    the one that they have in common.

    Args:
        config (str | PathLike | Config): Config whose test set was evaluated.
        predictions (str): Pickle file written by ``mim test mmdet … --out`` or
            ``tools/test.py … --out``.
        out_dir (str): Folder for the pictures; made if absent.
        num (int, optional): Number of images, spread evenly over the test set. Defaults to all.
        options: ``score_thr``, ``iou_thr`` and ``min_side`` of :func:`draw_detections`.

    Returns:
        list[str]: Paths of the pictures.

    Raises:
        LaunchError: If the predictions are not those of the config's test set.

    Example:
        >>> save_detection_pictures('configs/retina_coco.py', 'predictions.pkl', 'pictures')
    """
    written = []
    for name, picture in _draw(config, predictions, num, options):
        written.append(osp.join(out_dir, name))
        save_picture(picture, written[-1])
    return written


def _draw(
    config: Union[PathLike, Config], predictions: str, num: Optional[int], options: dict
) -> Iterator[Tuple[str, np.ndarray]]:
    """Draw ``num`` images, spread evenly over the test set; name them below their folder."""
    cfg = load_config(config)
    found = {result['img_id']: result['pred_instances'] for result in load(predictions)}
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    check_dataset(dataset, 'test_dataloader')
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    folder = osp.commonpath([osp.dirname(info['img_path']) for info in infos])
    num = len(infos) if num is None else min(num, len(infos))
    for index in np.linspace(0, len(infos) - 1, num).round().astype(int):
        info = infos[index]
        if info['img_id'] not in found:
            raise LaunchError(
                f'{predictions!r} has no result for image {info["img_id"]} of the test set: give '
                'the config that the predictions were made with.'
            )
        counted, ignored = (
            [item for item in info['instances'] if bool(item['ignore_flag']) == flag]
            for flag in (False, True)
        )
        result = found[info['img_id']]
        image = mmcv.imread(
            info['img_path'], channel_order='rgb', backend_args=dataset.backend_args
        )
        if image is None:
            raise LaunchError(f'{info["img_path"]!r} of the test set is not a readable image.')
        picture = draw_detections(
            image,
            [item['bbox'] for item in counted],
            [item['bbox_label'] for item in counted],
            result['bboxes'],
            result['labels'],
            result['scores'],
            dataset.metainfo['classes'],
            ignored_bboxes=[item['bbox'] for item in ignored],
            ignored_labels=[item['bbox_label'] for item in ignored],
            **options,
        )
        yield osp.relpath(info['img_path'], folder or '.'), picture
