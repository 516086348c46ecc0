"""Pictures of ground truth and detections from a file of predictions."""

import os
import os.path as osp
import pickle
from typing import Any, Iterator, List, Optional, Sequence, Tuple, Union

import mmcv
import numpy as np
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.fileio import get, load
from mmengine.registry import init_default_scope

from mmdet_contrast.utils.launch import load_config
from mmdet_contrast.utils.launch_checks import LaunchError, check_dataset, explained
from mmdet_contrast.visualization.canvas import grid, save_picture
from mmdet_contrast.visualization.detection_picture import draw_detections

AnyConfig = Union[str, 'os.PathLike[str]', Config]


def save_detection_sheet(
    config: AnyConfig,
    predictions: str,
    out_file: str,
    num: int = 8,
    columns: int = 2,
    score_thr: float = 0.3,
    min_panel: int = 640,
    iou_thr: float = 0.5,
) -> str:
    """Draw ground truth and detections of test images on one sheet.

    Args:
        config (str | PathLike | Config): Config whose test set was evaluated.
        predictions (str): Pickle file written by ``mim test mmdet … --out`` or
            ``tools/test.py … --out``.
        out_file (str): PNG to write; its folder is made if absent.
        num (int): Number of images, spread evenly over the test set. Defaults to 8.
        columns (int): Images per row. Defaults to 2.
        score_thr (float): See :func:`draw_detections`.
        min_panel (int): See :func:`draw_detections`.
        iou_thr (float): See :func:`draw_detections`.

    Returns:
        str: ``out_file``.

    Raises:
        LaunchError: If the config or its test data cannot be used.
        FileNotFoundError: If ``predictions`` does not exist.
        ValueError: If the predictions are not those of the config's test set, or an image cannot be
            read.
    """
    dataset, found = _read(config, predictions)
    pictures = [
        picture
        for _, picture in _draw(dataset, found, predictions, num, score_thr, min_panel, iou_thr)
    ]
    save_picture(grid(pictures, columns), out_file)
    return out_file


def save_detection_pictures(
    config: AnyConfig,
    predictions: str,
    out_dir: str,
    num: Optional[int] = None,
    score_thr: float = 0.3,
    min_panel: int = 640,
    iou_thr: float = 0.5,
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
        score_thr (float): See :func:`draw_detections`.
        min_panel (int): See :func:`draw_detections`.
        iou_thr (float): See :func:`draw_detections`.

    Returns:
        list[str]: Paths of the pictures.

    Raises:
        LaunchError: If the config or its test data cannot be used.
        FileNotFoundError: If ``predictions`` does not exist.
        ValueError: If the predictions are not those of the config's test set, or an image cannot be
            read.

    Example:
        >>> save_detection_pictures('configs/retina_shapes.py', 'predictions.pkl', 'pictures')
    """
    dataset, found = _read(config, predictions)
    paths = [dataset.get_data_info(index)['img_path'] for index in range(len(dataset))]
    common = osp.commonpath([osp.dirname(path) for path in paths])
    written = []
    for path, picture in _draw(dataset, found, predictions, num, score_thr, min_panel, iou_thr):
        out_file = osp.join(out_dir, osp.relpath(path, common or '.'))
        save_picture(picture, out_file)
        written.append(out_file)
    return written


def _read(config: AnyConfig, predictions: str) -> Tuple[Any, dict]:
    """The test set, and the results by image id."""
    cfg = load_config(config)
    if cfg.get('test_dataloader') is None:
        raise LaunchError(f'config {cfg.filename!r} has no test_dataloader: give that of the test.')
    if not osp.isfile(predictions):
        raise FileNotFoundError(
            f'predictions file {predictions!r} does not exist: write it with tools/test.py --out.'
        )
    try:
        results = {
            result['img_id']: result['pred_instances']
            for result in load(predictions, file_format='pkl')
        }
    except (pickle.UnpicklingError, EOFError, TypeError, KeyError) as error:
        raise ValueError(
            f'{predictions!r} is not a file of predictions: write it with tools/test.py --out.'
        ) from error
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    with explained(cfg):
        dataset = DATASETS.build(cfg.test_dataloader.dataset)
        check_dataset(dataset, 'test_dataloader')
    return dataset, results


def _draw(
    dataset: Any,
    results: dict,
    predictions: str,
    num: Optional[int],
    score_thr: float,
    min_panel: int,
    iou_thr: float,
) -> Iterator[Tuple[str, np.ndarray]]:
    """Pictures of ``num`` images, spread evenly over the test set, with the images' paths."""
    num = len(dataset) if num is None else min(num, len(dataset))
    if num < 1:
        raise ValueError(f'the number of images is {num}, but must be at least 1.')
    for index in np.linspace(0, len(dataset) - 1, num).round().astype(int):
        info = dataset.get_data_info(int(index))
        if info['img_id'] not in results:
            raise ValueError(
                f'{predictions!r} has no result for image {info["img_id"]} of the test set: were '
                'they written with another config?'
            )
        image = mmcv.imfrombytes(get(info['img_path']))
        if image is None:
            raise ValueError(f'image {info["img_path"]!r} is damaged: it cannot be decoded.')
        found = results[info['img_id']]
        counted = [item for item in info['instances'] if not item['ignore_flag']]
        ignored = [item for item in info['instances'] if item['ignore_flag']]
        picture = draw_detections(
            image[..., ::-1],
            *_boxes_and_labels(counted),
            found['bboxes'].float().numpy(),
            found['labels'].tolist(),
            found['scores'].tolist(),
            dataset.metainfo['classes'],
            score_thr,
            min_panel,
            iou_thr,
            *_boxes_and_labels(ignored),
        )
        yield info['img_path'], picture


def _boxes_and_labels(instances: Sequence[dict]) -> Tuple[np.ndarray, List[int]]:
    boxes = np.array([item['bbox'] for item in instances], float).reshape(-1, 4)
    return boxes, [item['bbox_label'] for item in instances]
