"""One picture that shows ground truth and detections of several test images."""

import os
import os.path as osp
from typing import Sequence, Union

import cv2
import numpy as np
from mmengine.config import Config
from mmengine.fileio import load
from mmengine.registry import init_default_scope
from mmengine.utils import mkdir_or_exist

from mmdet_contrast.visualization.canvas import (
    draw_box,
    draw_label,
    enlarge,
    grid,
    palette,
    stack_panels,
)


def draw_detections(
    image: np.ndarray,
    gt_bboxes: np.ndarray,
    gt_labels: Sequence[int],
    bboxes: np.ndarray,
    labels: Sequence[int],
    scores: Sequence[float],
    classes: Sequence[str],
    score_thr: float = 0.3,
    min_panel: int = 384,
) -> np.ndarray:
    """Draw one image twice: with its ground truth, and with its detections.

    Args:
        image (ndarray): (H, W, 3) uint8 RGB.
        gt_bboxes (ndarray): (G, 4) ground truth, (x1, y1, x2, y2) in pixels.
        gt_labels (Sequence[int]): (G,) class indices.
        bboxes (ndarray): (D, 4) detections.
        labels (Sequence[int]): (D,) class indices.
        scores (Sequence[float]): (D,) scores in [0, 1].
        classes (Sequence[str]): Class names.
        score_thr (float): Detections with a lower score are not drawn. Defaults to 0.3.
        min_panel (int): Smaller images are enlarged by a whole factor until their longer side
            reaches this many pixels. Defaults to 384.

    Returns:
        ndarray: (H', W', 3) uint8 RGB picture.
    """
    colours = palette(len(classes))
    kept = np.asarray(scores, float).reshape(-1) >= score_thr
    # Ascending, so that the surest detections lie on top.
    order = [index for index in np.argsort(np.asarray(scores)) if kept[index]]
    truth = [(box, label, classes[label]) for box, label in zip(gt_bboxes, gt_labels)]
    found = [(bboxes[i], labels[i], f'{classes[labels[i]]} {scores[i]:.2f}') for i in order]
    panels = []
    for entries in (truth, found):
        panel, scale = enlarge(image, min_panel)
        for box, label, _ in entries:
            draw_box(panel, box * scale, colours[label])
        for box, label, text in entries:
            draw_label(panel, box * scale, text, colours[label])
        panels.append(panel)
    title = f'detections, score >= {score_thr:g}'
    return stack_panels(panels, [f'ground truth ({len(truth)})', f'{title} ({len(found)})'])


def save_detection_sheet(
    config: Union[str, 'os.PathLike[str]', Config],
    predictions: str,
    out_file: str,
    num: int = 8,
    columns: int = 2,
    score_thr: float = 0.3,
    min_panel: int = 384,
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

    Returns:
        str: ``out_file``.

    Raises:
        LaunchError: If the config file does not exist.
        FileNotFoundError: If ``predictions`` does not exist.
        ValueError: If the predictions are not those of the config's test set.
    """
    from mmdet.registry import DATASETS

    from mmdet_contrast.utils.launch import load_config

    cfg = load_config(config)
    if not osp.isfile(predictions):
        raise FileNotFoundError(
            f'predictions file {predictions!r} does not exist: write it with tools/test.py --out.'
        )
    results = {result['img_id']: result for result in load(predictions)}
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    classes = dataset.metainfo['classes']
    pictures = []
    for index in np.linspace(0, len(dataset) - 1, min(num, len(dataset))).round().astype(int):
        info = dataset.get_data_info(int(index))
        if info['img_id'] not in results:
            raise ValueError(
                f'{predictions!r} has no result for image {info["img_id"]} of the test set of '
                f'{cfg.filename!r}: were they written with another config?'
            )
        found = results[info['img_id']]['pred_instances']
        truth = [item for item in info['instances'] if not item['ignore_flag']]
        pictures.append(
            draw_detections(
                cv2.imread(info['img_path'])[..., ::-1],
                np.array([item['bbox'] for item in truth], float).reshape(-1, 4),
                [item['bbox_label'] for item in truth],
                found['bboxes'].numpy(),
                found['labels'].tolist(),
                found['scores'].tolist(),
                classes,
                score_thr,
                min_panel,
            )
        )
    mkdir_or_exist(osp.dirname(osp.abspath(out_file)))
    cv2.imwrite(out_file, grid(pictures, columns)[..., ::-1])
    return out_file
