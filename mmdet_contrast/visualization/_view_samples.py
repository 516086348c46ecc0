"""Training samples of a config, and panels with their boxes."""

import inspect
import os
from typing import Any, List, Optional, Sequence, Tuple, Union

import numpy as np
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import set_random_seed

from mmdet_contrast.datasets.transforms import ContrastiveView
from mmdet_contrast.datasets.transforms._patches import whole_pixels
from mmdet_contrast.utils.launch import load_config
from mmdet_contrast.utils.launch_checks import check_dataset, explained
from mmdet_contrast.utils.type_name import type_name
from mmdet_contrast.visualization.canvas import (
    GREY,
    Colour,
    Rectangle,
    draw_box,
    draw_label,
    enlarge,
    palette,
)


def open_training_set(
    config: Union[str, 'os.PathLike[str]', Config], num: int, seed: int, warm_up: int
) -> Tuple[Config, Any, List[int]]:
    """Build a config's training set, seeded, and choose samples of it.

    Args:
        config (str | PathLike | Config): Config with a training set.
        num (int): Number of samples wanted.
        seed (int): Seed of the pipeline's random choices.
        warm_up (int): See :func:`save_view_pairs`.

    Returns:
        tuple[Config, Dataset, list[int]]: The config, the data set, and at most ``num`` indices
        spread evenly over it.

    Raises:
        LaunchError: If the config cannot be used, its data do not exist or cannot be read, or the
            training set is empty.
        ValueError: If the config has no training set, or a number is out of range.
    """
    for name, value, least in (('num', num, 1), ('warm_up', warm_up, 0)):
        if value < least:
            raise ValueError(
                f'{name} is {value}, but must be at least {least}: a number of samples.'
            )
    cfg = load_config(config)
    if cfg.get('train_dataloader') is None:
        raise ValueError('the config has no train_dataloader: there is nothing to draw.')
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    set_random_seed(seed)
    with explained(cfg):
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
        check_dataset(dataset, 'train_dataloader')
        view = find_view(cfg.train_dataloader.dataset) or {}
        if view.get('fill', 'zoom') != 'zoom':
            for index in np.random.default_rng(seed).permutation(len(dataset))[:warm_up]:
                dataset[int(index)]
    chosen = np.linspace(0, len(dataset) - 1, min(num, len(dataset))).round().astype(int)
    return cfg, dataset, chosen.tolist()


def preprocessor_config(cfg: Config) -> Optional[dict]:
    """Find the data preprocessor of a config's model, or of its student.

    Args:
        cfg (Config): The config.

    Returns:
        dict: Its config, or None where there is none.
    """
    model = cfg.get('model') or {}
    for part in (model, model.get('student'), model.get('detector')):
        if isinstance(part, dict) and part.get('data_preprocessor'):
            return part['data_preprocessor']
    return None


def key_source(cfg: Config) -> str:
    """Find what a config's contrastive loss compares an object with.

    Args:
        cfg (Config): The config.

    Returns:
        str: ``key_source`` of its ``RegionContrast``; the default where it has none.
    """
    model = cfg.get('model') or {}
    for part in (model, model.get('student'), model.get('detector')):
        # either may be given by its path
        head = part.get('bbox_head') if isinstance(part, dict) else None
        if isinstance(head, dict) and head.get('contrast'):
            return head['contrast'].get('key_source', 'view')
    return 'view'


def find_view(node: Any) -> Optional[dict]:
    """Find the first ``ContrastiveView`` in a data set's config.

    Args:
        node (Any): A data set's config, or any part of it.

    Returns:
        dict: Config of the transform, or None where there is none.
    """
    if isinstance(node, dict):
        if type_name(node.get('type')) == 'ContrastiveView':
            return node
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        return next((view for view in map(find_view, node) if view is not None), None)
    return None


def view_min_size(node: Any) -> Optional[int]:
    """Find the ``min_size`` of the first ``ContrastiveView`` in a data set's config.

    Args:
        node (Any): A data set's config, or any part of it.

    Returns:
        int: Smallest side in pixels of a box that is filled, or None where there is no view.
    """
    view = find_view(node)
    if view is None:
        return None
    return view.get('min_size', inspect.signature(ContrastiveView).parameters['min_size'].default)


def left_out_reason(box: np.ndarray, shape: Tuple[float, float], min_size: Optional[int]) -> str:
    """Say why a box takes no part: one of the two reasons that ``ContrastiveView`` has.

    Args:
        box (ndarray): (4,) box in the original, in pixels.
        shape (tuple[float, float]): Height and width of the image.
        min_size (int, optional): ``min_size`` of the view, if known.

    Returns:
        str: The reason, in a word or two.
    """
    if min_size is None:
        return 'left out'
    x1, y1, x2, y2 = whole_pixels(box[None], shape)[0]
    return 'too small' if min(x2 - x1, y2 - y1) < min_size else 'covered'


def to_pictures(inputs: Any, flip_channels: bool) -> np.ndarray:
    """Turn packed images into pictures.

    Args:
        inputs (Tensor): (N, C, H, W) of any dtype, in grey levels from 0 to 255.
        flip_channels (bool): Whether to reverse the channels (BGR to RGB).

    Returns:
        ndarray: (N, H, W, 3) uint8.

    Raises:
        ValueError: If the images have neither one nor three channels.
    """
    images = inputs.permute(0, 2, 3, 1).cpu().numpy()
    if images.shape[-1] not in (1, 3):
        raise ValueError(
            f'the images have {images.shape[-1]} channels; only grey and colour ones can be drawn.'
        )
    if images.shape[-1] == 1:
        images = images.repeat(3, axis=-1)
    if flip_channels:
        images = images[..., ::-1]
    if images.dtype != np.uint8:
        images = images.clip(0, 255).astype(np.uint8)
    return images


def to_numpy(boxes: Any) -> np.ndarray:
    """Turn boxes into an array.

    Args:
        boxes (Tensor | BaseBoxes): (M, 4).

    Returns:
        ndarray: (M, 4) float.
    """
    boxes = getattr(boxes, 'tensor', boxes)
    return boxes.detach().cpu().numpy().reshape(-1, 4)


def boxes_and_labels(instances: Any) -> Tuple[np.ndarray, List[int]]:
    """Take the boxes and classes of instances.

    Args:
        instances (InstanceData): ``bboxes`` and ``labels``, or neither where a sample has no boxes.

    Returns:
        tuple[ndarray, list[int]]: (M, 4) boxes and M class indices.
    """
    if 'bboxes' not in instances:
        return np.zeros((0, 4)), []
    return to_numpy(instances.bboxes), instances.labels.tolist()


def box_colours(labels: Sequence[int], taking_part: Sequence[bool], num: int) -> List[Colour]:
    """Colour of each box: that of its class, or grey where it takes no part.

    Args:
        labels (Sequence[int]): (M,) class indices.
        taking_part (Sequence[bool]): (M,).
        num (int): Number of classes.

    Returns:
        list[tuple[int, int, int]]: M RGB colours.
    """
    colours = palette(num)
    return [colours[label] if part else GREY for label, part in zip(labels, taking_part)]


def boxes_panel(
    image: np.ndarray,
    boxes: np.ndarray,
    names: Sequence[str],
    inks: Sequence[Colour],
    solid: Sequence[bool],
    ignored: Optional[np.ndarray] = None,
    min_panel: int = 480,
) -> np.ndarray:
    """Draw named boxes on an enlarged copy of an image.

    Args:
        image (ndarray): (H, W, 3) uint8 RGB.
        boxes (ndarray): (M, 4) boxes in pixels of ``image``.
        names (Sequence[str]): (M,) what to write beside each.
        inks (Sequence[tuple]): (M,) RGB colours.
        solid (Sequence[bool]): (M,) False for dashed lines.
        ignored (ndarray, optional): (K, 4) ignored boxes, dashed and grey.
        min_panel (int): See :func:`draw_view_pair`.

    Returns:
        ndarray: (H', W', 3) uint8 RGB picture.
    """
    panel, scale = enlarge(np.ascontiguousarray(image), min_panel)
    taken: List[Rectangle] = []
    if ignored is not None:
        for box in ignored:
            draw_box(panel, box * scale, GREY, dashed=True)
            draw_label(panel, box * scale, 'ignored', GREY, taken=taken)
    for box, ink, whole in zip(boxes, inks, solid):
        draw_box(panel, box * scale, ink, dashed=not whole)
    # Labels last, so that no box line crosses a name.
    for box, ink, name in zip(boxes, inks, names):
        draw_label(panel, box * scale, name, ink, taken=taken)
    return panel
