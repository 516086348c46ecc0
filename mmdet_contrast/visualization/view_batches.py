"""Pictures of training batches: what the model gets after the data preprocessor."""

import os
import os.path as osp
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

import numpy as np
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.logging import MessageHub

from mmdet_contrast.utils.launch_checks import explained
from mmdet_contrast.utils.stream_writers import prepare_folder
from mmdet_contrast.visualization._view_samples import (
    box_colours,
    boxes_and_labels,
    boxes_panel,
    key_source,
    left_out_reason,
    open_training_set,
    preprocessor_config,
    to_numpy,
    to_pictures,
    view_min_size,
)
from mmdet_contrast.visualization.canvas import grid, save_picture, stack_panels

Source = Tuple[int, int]


def draw_view_batch(
    images: np.ndarray,
    data_samples: Sequence[Any],
    classes: Sequence[str],
    min_size: Optional[int] = None,
    min_panel: int = 480,
    columns: int = 4,
    own_pairs: bool = False,
) -> np.ndarray:
    """Draw a batch of originals, views and canvases; one object has one number everywhere.

    Boxes that take part in the contrastive loss are solid in the colour of their class. Those that
    do not are dashed and grey, and say why in the original: "too small", "covered", or "not in a
    view" where no view or canvas of the batch shows them. Without any view in the batch, boxes
    carry their class alone.

    Args:
        images (ndarray): (B, H, W, 3) uint8 RGB.
        data_samples (Sequence[DetDataSample]): B samples with ``gt_instances`` as
            ``ContrastiveDataPreprocessor`` lays them out: metainfo ``view`` (0 or 1), and for views
            ``view_of``, or for canvases ``source_image`` and ``source_box`` of every box.
        classes (Sequence[str]): Class names.
        min_size (int, optional): ``min_size`` of the ``ContrastiveView`` that made the views.
        min_panel (int): Smaller images are enlarged by a whole factor until their longer side
            reaches this many pixels. Defaults to 480.
        columns (int): Images per row. Defaults to 4.
        own_pairs (bool): Whether objects of images without a view are compared with themselves, as
            with ``RegionContrast(key_source='view_or_image')``. Defaults to False.

    Returns:
        ndarray: (H', W', 3) uint8 RGB picture.
    """
    sources = [_sources(sample, position) for position, sample in enumerate(data_samples)]
    is_view = [bool(sample.get('view', 0)) for sample in data_samples]
    valid = {
        source: bool(flag)
        for sample, rows in zip(data_samples, sources)
        for source, flag in zip(rows, _valid_flags(sample))
        if not sample.get('view', 0)
    }
    shown = {source for rows, view in zip(sources, is_view) if view for source in rows}
    if own_pairs:
        viewed = {image for image, _ in shown}
        viewed |= {i for i, sample in enumerate(data_samples) if sample.get('has_view', False)}
        shown |= {(image, row) for image, row in valid if image not in viewed}
    numbers = {source: number for number, source in enumerate(sorted(valid))}
    panels = []
    for position, (image, sample) in enumerate(zip(images, data_samples)):
        gt, rows = sample.gt_instances, sources[position]
        boxes, labels = boxes_and_labels(gt)
        parts = [not any(is_view) or (valid.get(row, True) and row in shown) for row in rows]
        names = _names(sample, rows, numbers, valid, parts, boxes, labels, classes, min_size)
        ignored = sample.get('ignored_instances', ())
        panel = boxes_panel(
            image,
            boxes,
            names,
            box_colours(labels, parts, len(classes)),
            parts,
            to_numpy(ignored.bboxes) if 'bboxes' in ignored and not is_view[position] else None,
            min_panel,
        )
        panels.append(stack_panels([panel], [_title(sample, position, parts, any(is_view))]))
    return grid(panels, columns)


def save_view_batches(
    config: Union[str, 'os.PathLike[str]', Config],
    out_dir: str,
    num: int = 8,
    seed: int = 0,
    min_panel: int = 480,
    warm_up: int = 32,
) -> List[str]:
    """Draw batches of a config's training set as the data preprocessor hands them to the model.

    Padding, canvases and batch augmentations are what training would see; normalisation is undone
    for the eye.

    Args:
        config (str | PathLike | Config): Config with a training set and a data preprocessor.
        out_dir (str): Folder for the pictures; made if absent.
        num (int): Number of samples, spread evenly over the data set and put together in batches of
            the config's size. Defaults to 8.
        seed (int): Seed of all random choices. Defaults to 0.
        min_panel (int): See :func:`draw_view_batch`.
        warm_up (int): See :func:`mmdet_contrast.visualization.save_view_pairs`.

    Returns:
        list[str]: Paths of the PNG files, one for each batch.

    Raises:
        LaunchError: If the config cannot be used, its data do not exist or cannot be read, or the
            training set is empty.
        ValueError: If the config has no data preprocessor, or one that gives no single batch of
            images, or no training set, or a number is out of range.
        OSError: If the folder cannot be written to.

    Example:
        >>> save_view_batches('configs/retina_contrast_shapes.py', 'work_dirs/batches', num=8)
    """
    cfg, dataset, indices = open_training_set(config, num, seed, warm_up)
    settings = preprocessor_config(cfg)
    if settings is None:
        raise ValueError(
            'the config names no model.data_preprocessor, so there is no batch to draw; leave '
            'out --batch to draw single samples.'
        )
    preprocessor = MODELS.build(settings)
    size = cfg.train_dataloader.get('batch_size') or 1
    to_rgb = not settings.get('bgr_to_rgb', False)
    prepare_folder(out_dir)
    paths = []
    for number, start in enumerate(range(0, len(indices), size)):
        with explained(cfg):
            batch = _collate([dataset[index] for index in indices[start : start + size]])
        # BatchSyncRandomResize counts by it, and there is no runner that would set it
        MessageHub.get_current_instance().update_info('iter', number)
        batch = preprocessor(batch, training=True)
        if not torch.is_tensor(batch['inputs']):
            raise ValueError(
                f'the data preprocessor gives inputs of type {type(batch["inputs"]).__name__}, '
                'not one batch of images: leave out --batch to draw single samples.'
            )
        picture = draw_view_batch(
            to_pictures(_denormalise(batch['inputs'], preprocessor), to_rgb),
            batch['data_samples'],
            dataset.metainfo.get('classes', ()),
            view_min_size(cfg.train_dataloader.dataset),
            min_panel,
            own_pairs=key_source(cfg) == 'view_or_image',
        )
        path = osp.join(out_dir, f'batch_{number:03d}.png')
        save_picture(picture, path)
        paths.append(path)
    return paths


def _collate(samples: Sequence[dict]) -> dict:
    """Put samples together, without the branches that none of them has."""
    batch = pseudo_collate(samples)
    for key, parts in batch.items():
        # the data preprocessor of branches fails at one without images
        if isinstance(parts, dict):
            present = {name: x for name, x in parts.items() if any(y is not None for y in x)}
            batch[key] = present
    return batch


def _sources(sample: Any, position: int) -> List[Source]:
    """Original and row there of every box of a sample."""
    gt = sample.gt_instances
    if 'source_box' in gt:
        return list(zip(gt.source_image.tolist(), gt.source_box.tolist()))
    original = sample.get('view_of', position) if sample.get('view', 0) else position
    return [(original, row) for row in range(len(gt))]


def _valid_flags(sample: Any) -> List[bool]:
    gt = sample.gt_instances
    return gt.view_valid.tolist() if 'view_valid' in gt else [True] * len(gt)


def _names(
    sample: Any,
    rows: Sequence[Source],
    numbers: Dict[Source, int],
    valid: Dict[Source, bool],
    parts: Sequence[bool],
    boxes: np.ndarray,
    labels: Sequence[int],
    classes: Sequence[str],
    min_size: Optional[int],
) -> List[str]:
    """What to write beside each box: its number; in the original also its class, or the reason."""
    names = []
    for row, box, label, part in zip(rows, boxes, labels, parts):
        name = str(numbers.get(row, '?'))
        if not sample.get('view', 0):
            name += f' {classes[label]}'
            if not part:
                shape = sample.get('img_shape', (np.inf, np.inf))
                hidden = valid[row]
                name += f': {"not in a view" if hidden else left_out_reason(box, shape, min_size)}'
        names.append(name)
    return names


def _title(sample: Any, position: int, parts: Sequence[bool], views: bool) -> str:
    if not sample.get('view', 0):
        return f'{position}: image' + (f', {sum(parts)} of {len(parts)} take part' * views)
    if sample.get('canvas', False):
        return f'{position}: canvas, {sum(parts)} boxes'
    return f'{position}: view of {sample.get("view_of", "?")}'


def _denormalise(inputs: Any, preprocessor: Any) -> Any:
    """Undo the normalisation of a data preprocessor."""
    if getattr(preprocessor, '_enable_normalize', False):
        inputs = inputs * preprocessor.std + preprocessor.mean
    return inputs.round()
