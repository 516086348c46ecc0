"""Pictures of training samples: original and contrastive view side by side, with boxes."""

import os.path as osp
from typing import Any, List, Optional, Sequence, Tuple, Union

import numpy as np
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import set_random_seed

from mmdet_contrast.engine.run_checks import check_dataset
from mmdet_contrast.utils.config import load_config
from mmdet_contrast.utils.files import PathLike, prepare_folder

from .canvas import (
    GREY,
    Rectangle,
    draw_box,
    draw_label,
    enlarge,
    palette,
    save_picture,
    stack_panels,
    to_array,
)


def draw_view_pair(
    images: np.ndarray,
    bboxes: np.ndarray,
    labels: Sequence[int],
    classes: Sequence[str],
    view_valid: Optional[Sequence[bool]] = None,
    view_bboxes: Optional[np.ndarray] = None,
    ignored_bboxes: Optional[np.ndarray] = None,
    min_side: int = 480,
    clean: bool = False,
) -> np.ndarray:
    """Draw one sample: the original on the left, its contrastive view, if any, on the right.

    Boxes that take part in the contrastive loss are solid, in the colour of their class; the others
    are dashed and grey. Ignored boxes (crowd, difficult) are dashed and grey in the original.

    Args:
        images (ndarray): (2, H, W, 3) uint8 RGB, the original and the view; or (1, H, W, 3) for an
            image without a view.
        bboxes (ndarray): (M, 4) boxes in the original, (x1, y1, x2, y2) in pixels.
        labels (Sequence[int]): (M,) class indices.
        classes (Sequence[str]): Class names.
        view_valid (Sequence[bool], optional): (M,) True where the box takes part in the contrastive
            loss. Defaults to all of them.
        view_bboxes (ndarray, optional): (M, 4) boxes in the view. Defaults to ``bboxes``.
        ignored_bboxes (ndarray, optional): (K, 4) ignored boxes of the original.
        min_side (int): Smaller images are enlarged by a whole factor until their longer side
            reaches this many pixels. Defaults to 480.
        clean (bool): Whether to put the images without boxes before those with them. Defaults to
            False.

    Returns:
        ndarray: (H', W', 3) uint8 RGB picture.
    """
    valid = [True] * len(bboxes) if view_valid is None else [bool(flag) for flag in view_valid]
    sides = (bboxes, ignored_bboxes), (bboxes if view_bboxes is None else view_bboxes, None)
    panels = [
        _boxes_panel(image, boxes, labels, classes, valid, ignored, min_side)
        for image, (boxes, ignored) in zip(images, sides)
    ]
    note = f'{len(bboxes)} box{"" if len(bboxes) == 1 else "es"}'
    if not all(valid):
        note += f', {valid.count(False)} left out of the loss'
    titles = [f'{note}, no view']
    if len(images) == 2:
        titles = ['boxes in the original', f'boxes in the view ({note})']
    if clean:
        panels = [enlarge(np.ascontiguousarray(image), min_side)[0] for image in images] + panels
        titles = ['original', 'view'][: len(images)] + titles
    return stack_panels(panels, titles)


def save_view_pairs(
    config: Union[PathLike, Config],
    out_dir: str,
    num: int = 8,
    seed: int = 0,
    min_side: int = 480,
    clean: bool = False,
    warm_up: int = 32,
) -> List[str]:
    """Draw samples of a config's training set, as its pipeline makes them.

    Samples without a contrastive view are drawn with their boxes alone, those of a pipeline with
    branches (two random views, teacher and student) branch by branch.

    Args:
        config (str | PathLike | Config): Config with a training set.
        out_dir (str): Folder for the pictures; made if absent.
        num (int): Number of samples, spread evenly over the data set. Defaults to 8.
        seed (int): Seed of the pipeline's random choices. Defaults to 0.
        min_side (int): See :func:`draw_view_pair`.
        clean (bool): See :func:`draw_view_pair`.
        warm_up (int): Number of samples that are loaded before the first one is drawn where views
            show other objects, so that there are some; 0 shows how training begins. Defaults to 32.

    Returns:
        list[str]: Paths of the PNG files.

    Raises:
        LaunchError: If the config does not exist, the training set is empty, or its classes are not
            those of the annotation file.
        OSError: If the folder cannot be written to.

    Example:
        >>> save_view_pairs('configs/contrast/retina_contrast_shapes.py', 'work_dirs/views', num=4)
    """
    cfg = load_config(config)
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    set_random_seed(seed)
    preprocessor = (cfg.get('model') or {}).get('data_preprocessor') or {}
    # MMDetection loads BGR; a model that turns RGB into BGR is given RGB
    to_rgb = not preprocessor.get('rgb_to_bgr', False)
    prepare_folder(out_dir)
    paths = []
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    check_dataset(dataset, 'train_dataloader')
    if 'same_class' in str(cfg.train_dataloader.dataset):
        for index in np.random.permutation(len(dataset))[:warm_up]:
            dataset[int(index)]
    chosen = np.linspace(0, len(dataset) - 1, min(num, len(dataset))).round()
    for number, index in enumerate(chosen):
        sample = dataset[int(index)]
        classes = dataset.metainfo.get('classes', ())
        picture, name = _draw_sample(sample, classes, to_rgb, min_side, clean)
        paths.append(osp.join(out_dir, f'{number:03d}_{name}.png'))
        save_picture(picture, paths[-1])
    return paths


def _draw_sample(
    sample: dict, classes: Sequence[str], to_rgb: bool, min_side: int, clean: bool
) -> Tuple[np.ndarray, str]:
    """Draw one item of the data set; return the picture and the image's name."""
    inputs, data = sample['inputs'], sample['data_samples']
    if isinstance(inputs, dict):
        # MultiBranch puts None where a sample has no such branch
        branches = [(name, x, data[name]) for name, x in inputs.items() if x is not None]
    elif 'gt_label' in data:
        branches = [(f'class {classes[data.gt_label]}', inputs, data)]
    else:
        gt = data.gt_instances
        picture = draw_view_pair(
            _to_pictures(inputs, to_rgb),
            *_boxes_and_labels(data),
            classes,
            view_valid=gt.get('view_valid'),
            view_bboxes=_boxes(gt, 'view_bboxes'),
            ignored_bboxes=_boxes(data.get('ignored_instances', {}), 'bboxes'),
            min_side=min_side,
            clean=clean,
        )
        return picture, _stem(data)
    panels = [
        _boxes_panel(
            _to_pictures(image, to_rgb)[0],
            *_boxes_and_labels(one),
            classes,
            ignored=_boxes(one.get('ignored_instances', {}), 'bboxes'),
            min_side=min_side,
        )
        for _, image, one in branches
    ]
    return stack_panels(panels, [title for title, _, _ in branches]), _stem(branches[0][2])


def _boxes_panel(
    image: np.ndarray,
    boxes: np.ndarray,
    labels: Sequence[int],
    classes: Sequence[str],
    valid: Optional[Sequence[bool]] = None,
    ignored: Optional[np.ndarray] = None,
    min_side: int = 480,
) -> np.ndarray:
    """Draw named boxes on an enlarged copy of an image."""
    panel, scale = enlarge(np.ascontiguousarray(image), min_side)
    colours = palette(len(classes))
    valid = [True] * len(boxes) if valid is None else valid
    drawn = [(box, 'ignored', GREY, True) for box in (() if ignored is None else ignored)]
    for box, label, part in zip(boxes, labels, valid):
        drawn.append((box, classes[label], colours[label] if part else GREY, not part))
    for box, _, ink, dashed in drawn:
        draw_box(panel, box * scale, ink, dashed=dashed)
    # names last, so that no line crosses one
    taken: List[Rectangle] = []
    for box, name, ink, _ in drawn:
        draw_label(panel, box * scale, name, ink, taken=taken)
    return panel


def _to_pictures(inputs: Any, to_rgb: bool) -> np.ndarray:
    """Turn a packed image, (C, H, W), or several of them into (N, H, W, 3) uint8 pictures."""
    images = to_array(inputs.reshape(-1, *inputs.shape[-3:]).permute(0, 2, 3, 1))
    images = images.clip(0, 255).astype(np.uint8)
    if images.shape[-1] == 1:
        return images.repeat(3, axis=-1)
    return images[..., ::-1] if to_rgb else images


def _boxes(instances: Any, name: str) -> Optional[np.ndarray]:
    boxes = instances.get(name)
    return None if boxes is None else to_array(boxes).reshape(-1, 4)


def _boxes_and_labels(data_sample: Any) -> Tuple[np.ndarray, List[int]]:
    instances = data_sample.get('gt_instances', {})
    boxes = _boxes(instances, 'bboxes')
    return (np.zeros((0, 4)), []) if boxes is None else (boxes, instances.labels.tolist())


def _stem(data_sample: Any) -> str:
    # LoadImageFromNDArray sets the path to None
    return osp.splitext(osp.basename(data_sample.get('img_path') or 'image'))[0]
