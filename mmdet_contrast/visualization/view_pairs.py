"""Pictures of training samples: original and contrastive view side by side, with boxes."""

import os
import os.path as osp
from typing import Any, List, Sequence, Union

import numpy as np
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import set_random_seed
from torch import Tensor

from mmdet_contrast.engine.run_checks import check_dataset, completed_data
from mmdet_contrast.utils.checkpoint import class_lists
from mmdet_contrast.utils.config import load_config
from mmdet_contrast.utils.files import PathLike

from .canvas import (
    GREY,
    DrawnBox,
    draw_boxes,
    enlarge,
    grid,
    palette,
    save_picture,
    to_array,
    to_rgb,
)

# samples that are loaded beforehand where views show other objects, so that there are some
_WARM_UP = 32


def save_view_pairs(
    config: Union[PathLike, Config],
    out_dir: str,
    num: int = 8,
    seed: int = 0,
    clean: bool = False,
) -> List[str]:
    """Draw samples of a config's training set, as its pipeline makes them.

    Samples without a contrastive view are drawn with their boxes alone, those of a pipeline with
    branches (two random views, teacher and student) branch by branch.

    Args:
        config (str | PathLike | Config): Config with a training set.
        out_dir (str): Folder for the pictures; made if absent.
        num (int): Number of samples, spread evenly over the data set. Defaults to 8.
        seed (int): Seed of the pipeline's random choices. Defaults to 0.
        clean (bool): Whether to put the images without boxes before those with them. Defaults to
            False.

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
    bgr = not preprocessor.get('rgb_to_bgr', False)
    os.makedirs(out_dir, exist_ok=True)
    with completed_data(dict(train_dataloader=cfg.train_dataloader)):
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
        check_dataset(dataset, 'train_dataloader')
    if 'same_class' in str(cfg.train_dataloader.dataset):
        for index in np.random.permutation(len(dataset))[:_WARM_UP]:
            dataset[int(index)]
    paths, classes = [], next(iter(class_lists(dataset)), ())
    chosen = np.linspace(0, len(dataset) - 1, min(num, len(dataset))).round()
    for number, index in enumerate(chosen):
        sample = dataset[int(index)]
        data = sample['data_samples']
        if isinstance(data, dict):
            # MultiBranch puts None where a sample has no such branch
            data = next(one for one in data.values() if one is not None)
        # LoadImageFromNDArray sets the path to None
        stem = osp.splitext(osp.basename(data.get('img_path') or 'image'))[0]
        paths.append(osp.join(out_dir, f'{number:03d}_{stem}.png'))
        picture = draw_sample(sample, classes, bgr, clean)
        save_picture(picture, paths[-1])
    return paths


def draw_sample(
    sample: dict, classes: Sequence[str], bgr: bool = True, clean: bool = False
) -> np.ndarray:
    """Draw one item of a data set: the original on the left, its contrastive view on the right.

    Boxes that take part in the contrastive loss are solid, in the colour of their class; the others
    are dashed and grey. Ignored boxes (crowd, difficult) are dashed and grey in the original.

    Args:
        sample (dict): ``inputs``, (C, H, W) or with the view (2, C, H, W), and ``data_samples``;
            or of both a dict by branch.
        classes (Sequence[str]): Class names.
        bgr (bool): Whether the channels are BGR. Defaults to True.
        clean (bool): Whether to put the images without boxes before those with them. Defaults to
            False.

    Returns:
        ndarray: (H', W', 3) uint8 RGB picture.
    """
    inputs, data = sample['inputs'], sample['data_samples']
    if isinstance(inputs, dict):
        branches = {name: (x, data[name]) for name, x in inputs.items() if x is not None}
        panels = [_panel(x, one, classes, bgr) for x, one in branches.values()]
        return grid(panels, list(branches))
    images = inputs.reshape(-1, *inputs.shape[-3:])
    gt = data.get('gt_instances', {})
    valid = [bool(flag) for flag in gt.get('view_valid', ())]
    note = f'{len(gt)} box{"" if len(gt) == 1 else "es"}'
    if not all(valid):
        note += f', {valid.count(False)} left out of the loss'
    titles = [f'{note}, no view']
    if 'gt_label' in data:
        titles = [f'class {classes[data.gt_label]}']
    panels = [_panel(images[0], data, classes, bgr)]
    if len(images) == 2:
        titles = ['boxes in the original', f'boxes in the view ({note})']
        panels.append(_panel(images[1], data, classes, bgr, view=True))
    if clean:
        panels = [enlarge(_picture(image, bgr))[0] for image in images] + panels
        titles = ['original', 'view'][: len(images)] + titles
    return grid(panels, titles)


def _panel(
    image: Tensor, data: Any, classes: Sequence[str], bgr: bool, view: bool = False
) -> np.ndarray:
    """Draw named boxes on an enlarged copy of an image."""
    panel, scale = enlarge(_picture(image, bgr))
    gt, colours = data.get('gt_instances', {}), palette(len(classes))
    boxes = gt.get('view_bboxes' if view else 'bboxes', gt.get('bboxes', ()))
    labels = to_array(gt.get('labels', ()))
    valid = to_array(gt.get('view_valid', np.ones(len(labels), bool)))
    drawn = [
        DrawnBox(box, colours[label] if part else GREY, classes[label], dashed=not part)
        for box, label, part in zip(to_array(boxes) * scale, labels, valid)
    ]
    if not view:
        ignored = to_array(data.get('ignored_instances', {}).get('bboxes', ())) * scale
        drawn += [DrawnBox(box, GREY, 'ignored', dashed=True) for box in ignored]
    draw_boxes(panel, drawn)
    return panel


def _picture(image: Tensor, bgr: bool) -> np.ndarray:
    """Turn a packed image, (C, H, W), into an RGB picture."""
    picture = to_rgb(to_array(image.permute(1, 2, 0)))
    return picture[..., ::-1] if bgr else picture
