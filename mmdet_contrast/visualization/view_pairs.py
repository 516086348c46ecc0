"""Pictures of the training samples: original and contrastive view side by side."""

import os
import os.path as osp
from typing import Any, List, Optional, Sequence, Tuple, Union

import numpy as np
from mmengine.config import Config

from mmdet_contrast.utils.launch_checks import explained
from mmdet_contrast.utils.stream_writers import prepare_folder
from mmdet_contrast.visualization._view_samples import (
    box_colours,
    boxes_and_labels,
    boxes_panel,
    left_out_reason,
    open_training_set,
    preprocessor_config,
    to_numpy,
    to_pictures,
    view_min_size,
)
from mmdet_contrast.visualization.canvas import enlarge, save_picture, stack_panels


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
    clean: bool = False,
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
        clean (bool): Whether to put both images without boxes beside those with them: original,
            view, boxes, boxes in the view. Defaults to False.

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
    taking_part = np.ones(len(bboxes), bool) if view_valid is None else np.asarray(view_valid, bool)
    names = [classes[label] for label in labels]
    for index in np.flatnonzero(~taking_part):
        names[index] += f': {left_out_reason(bboxes[index], inputs.shape[1:3], min_size)}'
    inks = box_colours(labels, taking_part, len(classes))
    sides = (bboxes, bboxes if view_bboxes is None else view_bboxes)
    panels = [
        boxes_panel(
            image, boxes, names, inks, taking_part, None if side else ignored_bboxes, min_panel
        )
        for side, (image, boxes) in enumerate(zip(inputs, sides))
    ]
    left_out = int((~taking_part).sum())
    note = _count(len(bboxes)) + (f', {left_out} left out of the loss' if left_out else '')
    titles = ['original', f'view ({note})']
    if clean:
        panels = [enlarge(np.ascontiguousarray(image), min_panel)[0] for image in inputs] + panels
        titles = ['original', 'view', 'boxes', f'boxes in the view ({note})']
    return stack_panels(panels, titles)


def draw_plain_sample(
    image: np.ndarray,
    bboxes: np.ndarray,
    labels: Sequence[int],
    classes: Sequence[str],
    ignored_bboxes: Optional[np.ndarray] = None,
    clean: bool = False,
    min_panel: int = 480,
) -> np.ndarray:
    """Draw a sample without a contrastive view: its image, its boxes and the note that it has none.

    Args:
        image (ndarray): (H, W, 3) uint8 RGB.
        bboxes (ndarray): (M, 4) boxes, (x1, y1, x2, y2) in pixels.
        labels (Sequence[int]): (M,) class indices.
        classes (Sequence[str]): Class names.
        ignored_bboxes (ndarray, optional): (K, 4) ignored boxes, dashed and grey.
        clean (bool): Whether to put the image without boxes beside it. Defaults to False.
        min_panel (int): See :func:`draw_view_pair`.

    Returns:
        ndarray: (H', W', 3) uint8 RGB picture.
    """
    taking_part = np.ones(len(bboxes), bool)
    names = [classes[label] for label in labels]
    inks = box_colours(labels, taking_part, len(classes))
    panels = [boxes_panel(image, bboxes, names, inks, taking_part, ignored_bboxes, min_panel)]
    titles = [f'{_count(len(bboxes))}, no view made']
    if clean:
        panels.insert(0, enlarge(np.ascontiguousarray(image), min_panel)[0])
        titles.insert(0, 'original')
    return stack_panels(panels, titles)


def save_view_pairs(
    config: Union[str, 'os.PathLike[str]', Config],
    out_dir: str,
    num: int = 8,
    seed: int = 0,
    min_panel: int = 480,
    clean: bool = False,
    warm_up: int = 32,
) -> List[str]:
    """Draw samples of a config's training set, exactly as training would see them.

    Samples of a pipeline that makes no contrastive view are drawn with their boxes alone, those of
    a pipeline with branches (two random views, teacher and student) branch by branch, those that
    the sample has.

    Args:
        config (str | PathLike | Config): Config with a training set.
        out_dir (str): Folder for the pictures; made if absent.
        num (int): Number of samples, spread evenly over the data set. Defaults to 8.
        seed (int): Seed of the pipeline's random choices. Defaults to 0.
        min_panel (int): See :func:`draw_view_pair`.
        clean (bool): See :func:`draw_view_pair`.
        warm_up (int): Where views are filled with other objects, samples that are loaded before the
            first one is drawn, so that there are others to draw from; 0 shows how training begins.
            Defaults to 32.

    Returns:
        list[str]: Paths of the PNG files.

    Raises:
        LaunchError: If the config cannot be used, its data do not exist or cannot be read, or the
            training set is empty.
        ValueError: If the config has no training set, or a number is out of range.
        OSError: If the folder cannot be written to.

    Example:
        >>> save_view_pairs('configs/retina_contrast_shapes.py', 'work_dirs/views', num=4)
    """
    cfg, dataset, indices = open_training_set(config, num, seed, warm_up)
    classes = dataset.metainfo.get('classes', ())
    # MMDetection's loaders give BGR, whether or not the data preprocessor turns it round.
    to_rgb = not (preprocessor_config(cfg) or {}).get('rgb_to_bgr', False)
    min_size = view_min_size(cfg.train_dataloader.dataset)
    prepare_folder(out_dir)
    paths = []
    for number, index in enumerate(indices):
        with explained(cfg):
            sample = dataset[index]
        picture, name = _draw_sample(sample, classes, to_rgb, min_size, min_panel, clean)
        path = osp.join(out_dir, f'{number:03d}_{name}.png')
        save_picture(picture, path)
        paths.append(path)
    return paths


def _draw_sample(
    sample: dict,
    classes: Sequence[str],
    to_rgb: bool,
    min_size: Optional[int],
    min_panel: int,
    clean: bool,
) -> Tuple[np.ndarray, str]:
    """Draw one item of the data set; returns the picture and the image's name."""
    inputs, data_sample = sample['inputs'], sample['data_samples']
    if isinstance(inputs, dict):
        # of MultiBranch: its samples have the same keys, and None where a pipeline has no such
        # branch, as those of labelled images have none for teacher and student
        branches = [
            (name, image, data_sample[name]) for name, image in inputs.items() if image is not None
        ]
        return _draw_images(branches, classes, to_rgb, min_panel), _stem(branches[0][2])
    shape = tuple(getattr(inputs, 'shape', ()))
    if len(shape) not in (3, 4) or (len(shape) == 4 and shape[0] != 2):
        raise ValueError(
            f'the training pipeline gives inputs of shape {shape or type(inputs).__name__}; '
            "(C, H, W) expected, or (2, C, H, W) with dict(type='ContrastiveView') before, and "
            "dict(type='PackContrastiveInputs') at, the end of train_pipeline."
        )
    name = _stem(data_sample)
    if 'gt_label' in data_sample:
        title = f'class {classes[data_sample.gt_label]}'
        return _draw_images([(title, inputs, data_sample)], classes, to_rgb, min_panel), name
    images = to_pictures(inputs if inputs.dim() == 4 else inputs[None], to_rgb)
    gt = data_sample.gt_instances
    boxes, labels = boxes_and_labels(gt)
    common = dict(ignored_bboxes=_ignored(data_sample), min_panel=min_panel, clean=clean)
    if inputs.dim() == 3:
        return draw_plain_sample(images[0], boxes, labels, classes, **common), name
    picture = draw_view_pair(
        images,
        boxes,
        labels,
        classes,
        view_valid=gt.view_valid.tolist() if 'view_valid' in gt else None,
        view_bboxes=to_numpy(gt.view_bboxes) if 'view_bboxes' in gt else None,
        min_size=min_size,
        **common,
    )
    return picture, name


def _draw_images(
    images: Sequence[Tuple[str, Any, Any]], classes: Sequence[str], to_rgb: bool, min_panel: int
) -> np.ndarray:
    """Draw images with what boxes they have, side by side: (title, (C, H, W), sample) of each."""
    panels = []
    for _, inputs, data_sample in images:
        boxes, labels = boxes_and_labels(data_sample.get('gt_instances', ()))
        taking_part = [True] * len(labels)
        inks = box_colours(labels, taking_part, len(classes))
        names = [classes[label] for label in labels]
        image, ignored = to_pictures(inputs[None], to_rgb)[0], _ignored(data_sample)
        panels.append(boxes_panel(image, boxes, names, inks, taking_part, ignored, min_panel))
    return stack_panels(panels, [title for title, _, _ in images])


def _ignored(data_sample: Any) -> Optional[np.ndarray]:
    """Boxes that are ignored, or None."""
    ignored = data_sample.get('ignored_instances', ())
    return to_numpy(ignored.bboxes) if 'bboxes' in ignored else None


def _stem(data_sample: Any) -> str:
    # LoadImageFromNDArray sets the path to None
    return osp.splitext(osp.basename(data_sample.get('img_path') or 'image'))[0]


def _count(boxes: int) -> str:
    return f'{boxes} box' + ('' if boxes == 1 else 'es')
