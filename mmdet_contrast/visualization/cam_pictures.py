"""Pictures of heat maps that explain detections."""

import os.path as osp
from typing import Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np
import torch
from mmengine.structures import InstanceData
from torch import nn

from .cam import (
    ActivationMap,
    CamTarget,
    box_target,
    class_activation_map,
    class_target,
    head_outputs,
)
from .canvas import draw_box, draw_label, enlarge, save_picture, stack_panels, to_array
from .detector_input import DetectorInput, SavedPicture, list_images, picture_stems, read_images
from .feature_map import add_colour_bar, align_to_image, paint_heat

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
        ValueError: If a class, module or level does not exist.
        LaunchError: If the detector has no dense head, which all methods but 'eigen-cam' need.
        FileNotFoundError: If ``inputs`` does not exist or holds no image.

    Example:
        >>> detector = load_detector('configs/contrast/retina_shapes.py', 'epoch_15.pth')
        >>> options = CamOptions(modules=['backbone.layer3'], boxes=[0, 1])
        >>> for saved in save_cams(detector, 'data/shapes/test', 'cams', options):
        ...     print(saved.out_file, saved.note)
    """
    options = options or CamOptions()
    paths = list_images(inputs)
    for stem, entry in zip(picture_stems(paths), read_images(detector, paths)):
        if isinstance(entry, SavedPicture):
            yield entry
            continue
        # Nothing is yielded from within: what a generator switches off is off for its caller, too.
        with torch.no_grad():
            found = detector.predict(entry.inputs, [entry.sample], rescale=True)[0].pred_instances
        found = found[found.scores.argsort(descending=True)]
        for name, target in _targets(detector, entry, found, options):
            if isinstance(target, str):
                yield SavedPicture(entry.path, None, target)
            else:
                out_file = osp.join(out_dir, f'{stem}.{name}{options.method}.png')
                kept = found[found.scores >= options.score_thr]
                yield _save_one(detector, entry, target, kept, options, out_file)


def _targets(
    detector: nn.Module, entry: DetectorInput, found: InstanceData, options: CamOptions
) -> List[Tuple[str, Union[CamTarget, str, None]]]:
    """Give the name of each picture and what it explains, or why there is nothing to explain."""
    if options.method == 'eigen-cam':
        return [('', None)]
    kept = found[found.scores >= options.score_thr]
    least = f'with a score of {options.score_thr:g} or more'
    with torch.no_grad():
        outputs = head_outputs(detector, entry.inputs)
    if options.class_name is not None:
        name = options.class_name
        target = class_target(detector, outputs, entry.sample, kept, name, options.reduce)
        if len(target.priors):
            # a name such as 'car/truck' is no folder
            return [(f'{name.replace("/", "_")}.', target)]
        best = _surest(found[found.labels == target.label])
        return [
            ('', f'no detection of {name!r} {least} ({best}): lower score-thr, or take reduce max')
        ]
    targets: List[Tuple[str, Union[CamTarget, str, None]]] = []
    for index in options.boxes:
        if index < len(kept):
            target = box_target(detector, outputs, entry.sample, kept, index)
            targets.append((f'box{index}.', target))
        else:
            text = f'no box {index}: {len(kept)} detections {least} ({_surest(found)})'
            targets.append(('', f'{text}: lower the index or score-thr'))
    return targets


def _surest(found: InstanceData) -> str:
    return f'the surest has {float(found.scores[0]):.2f}' if len(found) else 'there is none below'


def _save_one(
    detector: nn.Module,
    entry: DetectorInput,
    target: Optional[CamTarget],
    detections: InstanceData,
    options: CamOptions,
    out_file: str,
) -> SavedPicture:
    """Compute and write one heat map."""
    heat = class_activation_map(
        detector,
        entry.inputs,
        target,
        options.modules,
        options.level,
        options.method,
        options.chunk,
    )
    title = f'{options.method} of {", ".join(heat.used or heat.empty)}'
    note = title if target is None else f'{target.text}: {title}'
    if not heat.used:
        note += (
            ' is 0 everywhere: the score does not rest on this feature map, or is only held down '
            'by it; choose another module, level or method'
        )
        return SavedPicture(entry.path, None, note)
    if heat.empty:
        note += f' (0 everywhere: {", ".join(heat.empty)})'
    save_picture(_draw(heat, entry, target, detections, title, options), out_file)
    return SavedPicture(entry.path, out_file, note)


def _draw(
    heat: ActivationMap,
    entry: DetectorInput,
    target: Optional[CamTarget],
    detections: InstanceData,
    title: str,
    options: CamOptions,
) -> np.ndarray:
    """Draw an image with its detections, what is explained in white; beside it the heat map."""
    plain, scale = enlarge(entry.picture, options.min_side)
    values = align_to_image(heat.heat[None], entry.sample, plain.shape[:2])[0]
    painted = paint_heat(values, plain, options.alpha)
    width = max(2, round(max(plain.shape[:2]) / 320))
    for box in to_array(detections.bboxes) * scale:
        draw_box(plain, box, OTHER, width=width)
    text = f'{len(detections)} detections'
    if target is not None:
        text, boxes = target.text, to_array(target.boxes) * scale
        for box in boxes:
            for panel in (plain, painted):
                draw_box(panel, box, EXPLAINED, width=width)
        if len(boxes) == 1:
            draw_label(plain, boxes[0], text, EXPLAINED)
        if len(boxes) < len(detections):
            text += ' (white; other detections grey)' if len(boxes) else ' (detections grey)'
    painted = add_colour_bar(painted, float(values.min()), float(values.max()))
    return stack_panels([plain, painted], [text, title])
