"""Pictures of the training samples: original and contrastive view side by side."""

import inspect
import os
import os.path as osp
from typing import Any, List, Optional, Sequence, Tuple, Union

import cv2
import numpy as np
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import set_random_seed
from mmengine.utils import mkdir_or_exist

from mmdet_contrast.visualization.canvas import (
    GREY,
    draw_box,
    draw_label,
    enlarge,
    palette,
    stack_panels,
)


def draw_view_pair(
    inputs: np.ndarray,
    bboxes: np.ndarray,
    labels: Sequence[int],
    classes: Sequence[str],
    view_valid: Optional[Sequence[bool]] = None,
    view_bboxes: Optional[np.ndarray] = None,
    ignored_bboxes: Optional[np.ndarray] = None,
    min_size: Optional[int] = None,
    min_panel: int = 480,
) -> np.ndarray:
    """Draw one sample: the original on the left, its contrastive view on the right.

    Boxes that take part in the contrastive loss are solid in the colour of their class; boxes that
    do not are dashed and grey, and their label says why: "too small" or "covered" by other boxes
    ("left out" where ``min_size`` is not given). Ignored boxes (crowd, difficult) are dashed and
    grey in the original.

    Args:
        inputs (ndarray): (2, H, W, 3) uint8 RGB, the original and the view.
        bboxes (ndarray): (M, 4) boxes in the original, (x1, y1, x2, y2) in pixels.
        labels (Sequence[int]): (M,) class indices.
        classes (Sequence[str]): Class names.
        view_valid (Sequence[bool], optional): (M,) True where the box takes part in the contrastive
            loss. Defaults to all of them.
        view_bboxes (ndarray, optional): (M, 4) boxes in the view. Defaults to ``bboxes``.
        ignored_bboxes (ndarray, optional): (K, 4) ignored boxes of the original.
        min_size (int, optional): ``min_size`` of the ``ContrastiveView`` that made the view.
        min_panel (int): Smaller images are enlarged by a whole factor until their longer side
            reaches this many pixels. Defaults to 480.

    Returns:
        ndarray: (H', W', 3) uint8 RGB picture.

    Raises:
        ValueError: If ``inputs`` does not hold two RGB images.
    """
    if inputs.ndim != 4 or inputs.shape[0] != 2 or inputs.shape[-1] != 3:
        raise ValueError(
            f'inputs have shape {tuple(inputs.shape)}, but a view pair is (2, H, W, 3): does the '
            'pipeline contain ContrastiveView and PackContrastiveInputs?'
        )
    colours = palette(len(classes))
    taking_part = np.ones(len(bboxes), bool) if view_valid is None else np.asarray(view_valid, bool)
    names = [classes[label] for label in labels]
    for index in np.flatnonzero(~taking_part):
        names[index] += f': {_reason(bboxes[index], inputs.shape[1:3], min_size)}'
    panels = []
    for side, boxes in enumerate((bboxes, bboxes if view_bboxes is None else view_bboxes)):
        panel, scale = enlarge(np.ascontiguousarray(inputs[side]), min_panel)
        if side == 0 and ignored_bboxes is not None:
            for box in ignored_bboxes:
                draw_box(panel, box * scale, GREY, dashed=True)
                draw_label(panel, box * scale, 'ignored', GREY)
        for box, valid, label in zip(boxes, taking_part, labels):
            colour = colours[label] if valid else GREY
            draw_box(panel, box * scale, colour, dashed=not valid)
        # Labels last, so that no box line crosses a name.
        for box, valid, label, name in zip(boxes, taking_part, labels, names):
            draw_label(panel, box * scale, name, colours[label] if valid else GREY)
        panels.append(panel)
    left_out = int((~taking_part).sum())
    note = f'{len(bboxes)} boxes' + (f', {left_out} left out of the loss' if left_out else '')
    return stack_panels(panels, ['original', f'view ({note})'])


def save_view_pairs(
    config: Union[str, 'os.PathLike[str]', Config],
    out_dir: str,
    num: int = 8,
    seed: int = 0,
    min_panel: int = 480,
) -> List[str]:
    """Draw samples of a config's training set, exactly as training would see them.

    Args:
        config (str | PathLike | Config): Config whose training pipeline makes a contrastive view.
        out_dir (str): Folder for the pictures; made if absent.
        num (int): Number of samples, spread evenly over the data set. Defaults to 8.
        seed (int): Seed of the pipeline's random choices. Defaults to 0.
        min_panel (int): See :func:`draw_view_pair`.

    Returns:
        list[str]: Paths of the PNG files.

    Raises:
        LaunchError: If the config file does not exist.
        ValueError: If the training pipeline makes no view, or the data set is empty.

    Example:
        >>> save_view_pairs('configs/retina_contrast_shapes.py', 'work_dirs/views', num=4)
    """
    # Imported here because mmdet takes seconds and draw_view_pair does not need it.
    from mmdet.registry import DATASETS

    from mmdet_contrast.utils.launch import load_config

    cfg = load_config(config)
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    set_random_seed(seed)
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    if len(dataset) == 0:
        raise ValueError('the training set is empty: check data_root and ann_file in the config.')
    classes = dataset.metainfo['classes']
    to_rgb = cfg.model.get('data_preprocessor', {}).get('bgr_to_rgb', False)
    min_size = _view_min_size(cfg.train_dataloader.dataset)
    mkdir_or_exist(out_dir)
    paths = []
    num = min(num, len(dataset))
    for number, index in enumerate(np.linspace(0, len(dataset) - 1, num).round().astype(int)):
        sample = dataset[int(index)]
        picture, name = _draw_sample(sample, classes, to_rgb, min_size, min_panel)
        path = osp.join(out_dir, f'{number:03d}_{name}.png')
        cv2.imwrite(path, picture[..., ::-1])
        paths.append(path)
    return paths


def _reason(box: np.ndarray, shape: Tuple[int, int], min_size: Optional[int]) -> str:
    """Say why a box takes no part: the two reasons that ``ContrastiveView`` has."""
    if min_size is None:
        return 'left out'
    limits = np.array([shape[1], shape[0]])
    sides = box[2:4].clip(0, limits) - box[:2].clip(0, limits)
    return 'too small' if sides.min() < min_size else 'covered'


def _view_min_size(node: Any) -> Optional[int]:
    """Find the ``min_size`` of the first ``ContrastiveView`` in a data set's config."""
    if isinstance(node, dict):
        if str(node.get('type')).split('.')[-1] == 'ContrastiveView':
            from mmdet_contrast.datasets.transforms import ContrastiveView

            default = inspect.signature(ContrastiveView).parameters['min_size'].default
            return node.get('min_size', default)
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        found = (_view_min_size(child) for child in node)
        return next((size for size in found if size is not None), None)
    return None


def _draw_sample(
    sample: dict,
    classes: Sequence[str],
    to_rgb: bool,
    min_size: Optional[int],
    min_panel: int,
) -> Tuple[np.ndarray, str]:
    """Draw one item of the data set; returns the picture and the image's name."""
    inputs, data_sample = sample['inputs'], sample['data_samples']
    if inputs.dim() != 4 or inputs.shape[0] != 2:
        raise ValueError(
            f'the training pipeline gives inputs of shape {tuple(inputs.shape)}, not (2, C, H, W): '
            "put dict(type='ContrastiveView') before, and dict(type='PackContrastiveInputs') at, "
            'the end of train_pipeline.'
        )
    images = inputs.permute(0, 2, 3, 1).numpy()
    if images.shape[-1] == 1:
        images = images.repeat(3, axis=-1)
    if to_rgb:
        images = images[..., ::-1]
    if images.dtype != np.uint8:
        images = images.clip(0, 255).astype(np.uint8)
    gt = data_sample.gt_instances
    picture = draw_view_pair(
        images,
        _to_numpy(gt.bboxes),
        gt.labels.tolist(),
        classes,
        view_valid=gt.view_valid.tolist() if 'view_valid' in gt else None,
        view_bboxes=_to_numpy(gt.view_bboxes) if 'view_bboxes' in gt else None,
        ignored_bboxes=_to_numpy(data_sample.ignored_instances.bboxes)
        if 'ignored_instances' in data_sample
        else None,
        min_size=min_size,
        min_panel=min_panel,
    )
    return picture, osp.splitext(osp.basename(data_sample.get('img_path', 'image')))[0]


def _to_numpy(boxes: Any) -> np.ndarray:
    """(M, 4) tensor or box structure → float array."""
    boxes = getattr(boxes, 'tensor', boxes)
    return boxes.detach().cpu().numpy().reshape(-1, 4)
