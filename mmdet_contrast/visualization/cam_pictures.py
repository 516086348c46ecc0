"""Pictures of heat maps that explain detections."""

import os.path as osp
from typing import Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np
import torch
from mmengine.structures import InstanceData
from torch import nn

from mmdet_contrast.visualization.cam import METHODS, ActivationMap, class_activation_map
from mmdet_contrast.visualization.cam_targets import (
    CamTarget,
    box_target,
    class_target,
    head_outputs,
)
from mmdet_contrast.visualization.canvas import (
    draw_box,
    draw_label,
    enlarge,
    save_picture,
    stack_panels,
)
from mmdet_contrast.visualization.detector_input import (
    DetectorInput,
    SavedPicture,
    list_images,
    picture_stems,
    read_images,
)
from mmdet_contrast.visualization.heat_map import add_colour_bar, align_to_image, paint_heat

EXPLAINED = (255, 255, 255)
OTHER = (150, 150, 150)


class CamOptions(NamedTuple):
    """What :func:`save_cams` explains, and how.

    Attributes:
        modules (Sequence[str]): Dotted paths of the modules whose feature maps are weighted.
        level (int, optional): Which map of a module that gives several. None means all of them.
        method (str): See :func:`class_activation_map`.
        boxes (Sequence[int]): Which detections, counted from the surest, 0; a picture for each.
        class_name (str, optional): Explain this class instead of boxes.
        reduce (str): See :func:`class_target`.
        score_thr (float): Detections with a lower score do not count.
        min_side (int): Smaller pictures are enlarged by a whole factor until their longer side
            reaches this many pixels.
        alpha (float): Share of the heat map in the picture, in [0, 1].
        chunk (int): Images of a forward pass of 'ablation-cam'.
    """

    modules: Sequence[str] = ('neck',)
    level: Optional[int] = None
    method: str = 'hires-cam'
    boxes: Sequence[int] = (0,)
    class_name: Optional[str] = None
    reduce: str = 'sum'
    score_thr: float = 0.3
    min_side: int = 480
    alpha: float = 0.5
    chunk: int = 8


class _Explained(NamedTuple):
    target: Optional[CamTarget]
    detections: InstanceData


def save_cams(
    detector: nn.Module, inputs: str, out_dir: str, options: Optional[CamOptions] = None
) -> Iterator[SavedPicture]:
    """Draw what the scores of detections rest on, for an image or a folder of images.

    Args:
        detector (nn.Module): As :func:`load_detector` returns it.
        inputs (str): An image, or a folder of images.
        out_dir (str): Folder for the pictures, made if absent.
        options (CamOptions, optional): Defaults to the surest detection and all levels of the neck.

    Yields:
        SavedPicture: What became of each picture. Where an image has no such detection, or its heat
        map is 0 everywhere, there is none, and the note says so.

    Raises:
        ValueError: If a method, class, module or level does not exist, or a box or a class is given
            to 'eigen-cam'.
        FileNotFoundError: If ``inputs`` does not exist or holds no image.

    Example:
        >>> detector = load_detector('configs/retina_shapes.py', 'epoch_15.pth')
        >>> options = CamOptions(modules=['backbone.layer3'], boxes=[0, 1])
        >>> for saved in save_cams(detector, 'data/shapes/test', 'cams', options):
        ...     print(saved.out_file, saved.note)
    """
    options = options or CamOptions()
    if options.method not in METHODS:
        raise ValueError(f'method is {options.method!r}, but must be one of {", ".join(METHODS)}.')
    if options.method == 'eigen-cam' and (options.class_name or list(options.boxes) != [0]):
        raise ValueError(
            'eigen-cam explains neither a box nor a class: leave both out, or take another method.'
        )
    paths = list_images(inputs)
    for stem, entry in zip(picture_stems(paths), read_images(detector, paths)):
        if isinstance(entry, SavedPicture):
            yield entry
            continue
        for name, target in _targets(detector, entry, options):
            if isinstance(target, str):
                yield SavedPicture(entry.path, None, target)
                continue
            yield _save_one(detector, entry, target, options, osp.join(out_dir, f'{stem}.{name}'))


def draw_cam(
    heat: ActivationMap,
    entry: DetectorInput,
    target: Optional[CamTarget],
    detections: InstanceData,
    title: str,
    min_side: int = 480,
    alpha: float = 0.5,
) -> np.ndarray:
    """Draw an image with its detections, and beside it the heat map on the image.

    Args:
        heat (ActivationMap): The heat map.
        entry (DetectorInput): The image.
        target (CamTarget, optional): What is explained; its boxes are white, the others grey.
        detections (InstanceData): All detections, ``bboxes`` in pixels of the image.
        title (str): Title of the heat map.
        min_side (int): See :class:`CamOptions`.
        alpha (float): See :class:`CamOptions`.

    Returns:
        ndarray: (H', W', 3) uint8 RGB.
    """
    plain, scale = enlarge(entry.picture, min_side)
    values = align_to_image(heat.heat[None], entry.sample, plain.shape[:2])[0]
    painted = paint_heat(values, plain, alpha)
    width = max(2, round(max(plain.shape[:2]) / 320))
    for box in detections.bboxes.tolist():
        draw_box(plain, np.multiply(box, scale), OTHER, width=width)
    text = f'{len(detections)} detections'
    if target is not None:
        text = target.text
        for box in target.boxes.tolist():
            for panel in (plain, painted):
                draw_box(panel, np.multiply(box, scale), EXPLAINED, width=width)
        if len(target.boxes) == 1:
            box = np.multiply(target.boxes[0].tolist(), scale)
            draw_label(plain, box, text, EXPLAINED)
        if len(target.boxes) < len(detections):
            text += ' (white; other detections grey)' if len(target.boxes) else ' (detections grey)'
    painted = add_colour_bar(painted, float(values.min()), float(values.max()))
    return stack_panels([plain, painted], [text, title])


def _targets(
    detector: nn.Module, entry: DetectorInput, options: CamOptions
) -> Iterator[Tuple[str, Union[_Explained, str]]]:
    """Give the name of each picture and what it explains, or why there is nothing to explain."""
    method = options.method
    with torch.no_grad():
        found = detector.predict(entry.inputs, [entry.sample], rescale=True)[0].pred_instances
        found = found[found.scores.argsort(descending=True)]
        kept = found[found.scores >= options.score_thr]
        outputs = None if method == 'eigen-cam' else head_outputs(detector, entry.inputs)
    # not within no_grad: what a generator has switched off is off for its caller, too
    if outputs is None:
        yield f'{method}.png', _Explained(None, kept)
        return
    if options.class_name is not None:
        target = class_target(
            detector, outputs, entry.sample, kept, options.class_name, options.reduce
        )
        if len(target.priors):
            yield f'{options.class_name}.{method}.png', _Explained(target, kept)
        else:
            same = found.scores[found.labels == target.label]
            best = f'the surest has {float(same.max()):.2f}' if len(same) else 'there is none below'
            yield (
                '',
                f'no detection of {options.class_name!r} with a score of {options.score_thr:g} or '
                f'more ({best}): lower score-thr, or explain its strongest prediction '
                "with reduce 'max'",
            )
        return
    for index in options.boxes:
        if 0 <= index < len(kept):
            target = box_target(detector, outputs, entry.sample, kept, index)
            yield f'box{index}.{method}.png', _Explained(target, kept)
        else:
            best = f'the surest has {float(found.scores[0]):.2f}' if len(found) else 'there is none'
            yield (
                '',
                f'no box {index}: detections with a score of {options.score_thr:g} or more: '
                f'{len(kept)} ({best}); give a lower index or a lower score-thr',
            )


def _save_one(
    detector: nn.Module,
    entry: DetectorInput,
    explained: _Explained,
    options: CamOptions,
    out_file: str,
) -> SavedPicture:
    """Compute and write one heat map."""
    target, method = explained.target, options.method
    heat = class_activation_map(
        detector,
        entry.inputs,
        target,
        options.modules,
        options.level,
        method,
        options.chunk,
    )
    text = f'{method} of {_join(heat.used or heat.empty)}'
    if target is not None:
        text = f'{target.text}: {text}'
    if not heat.used:
        return SavedPicture(
            entry.path,
            None,
            f'{text} is 0 everywhere: the score does not rest on this feature map, or is only held '
            'down by it; choose another module, level or method',
        )
    title = f'{method} of {_join(heat.used)}'
    drawn = draw_cam(
        heat, entry, target, explained.detections, title, options.min_side, options.alpha
    )
    save_picture(drawn, out_file)
    note = f'{text} (0 everywhere: {_join(heat.empty)})' if heat.empty else text
    return SavedPicture(entry.path, out_file, note)


def _join(names: List[str]) -> str:
    return ', '.join(names)
