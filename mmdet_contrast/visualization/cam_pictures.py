"""Pictures of heat maps that explain detections."""

import os.path as osp
from typing import Iterator, List, Optional, Sequence, Tuple, Union

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
from .canvas import GREY, DrawnBox, draw_boxes, enlarge, grid, save_picture, to_array
from .detector_input import DetectorInput, SavedPicture, read_images
from .feature_map import align_to_image, paint_heat

_EXPLAINED = (255, 255, 255)


def save_cams(
    detector: nn.Module,
    inputs: str,
    out_dir: str,
    modules: Sequence[str] = ('neck',),
    level: Optional[int] = None,
    method: str = 'hires-cam',
    boxes: Sequence[int] = (0,),
    class_name: Optional[str] = None,
    score_thr: float = 0.3,
) -> Iterator[SavedPicture]:
    """Draw what the scores of detections rest on, for an image or a folder of images.

    Args:
        detector (nn.Module): As :func:`load_detector` returns it.
        inputs (str): An image, or a folder of images.
        out_dir (str): Folder for the pictures, made if absent.
        modules (Sequence[str]): See :func:`class_activation_map`.
        level (int, optional): See :func:`class_activation_map`.
        method (str): See :func:`class_activation_map`.
        boxes (Sequence[int]): Which detections, counted from the surest, 0; a picture for each.
            Defaults to the surest.
        class_name (str, optional): Explain this class instead of boxes: see :func:`class_target`.
        score_thr (float): Detections with a lower score do not count. Defaults to 0.3.

    Yields:
        SavedPicture: What became of each picture. Where an image has no such detection, or its heat
        map is 0 everywhere, there is none, and the note says so.

    Raises:
        ValueError: If a class, module or level does not exist.
        LaunchError: If the detector has no dense head.
        FileNotFoundError: If ``inputs`` does not exist or holds no image.

    Example:
        >>> detector = load_detector('configs/contrast/retina_shapes.py', 'epoch_15.pth')
        >>> for saved in save_cams(detector, 'data/shapes/test', 'cams', ['backbone.layer3']):
        ...     print(saved.out_file, saved.note)
    """
    for entry in read_images(detector, inputs):
        if isinstance(entry, SavedPicture):
            yield entry
            continue
        # Nothing is yielded from within: what a generator switches off is off for its caller, too.
        with torch.no_grad():
            found = detector.predict(entry.inputs, [entry.sample], rescale=True)[0].pred_instances
        found = found[found.scores.argsort(descending=True)]
        kept = found[found.scores >= score_thr]
        for name, target in _targets(detector, entry, kept, boxes, class_name):
            if isinstance(target, str):
                surest = f'{float(found.scores[0]):.2f}' if len(found) else 'none'
                note = f'{target} with a score of {score_thr:g} or more (the surest: {surest})'
                yield SavedPicture(entry.path, None, note)
                continue
            heat = class_activation_map(detector, entry.inputs, target, modules, level, method)
            title = f'{method} of {", ".join(heat.used or heat.empty)}'
            note = f'{target.text}: {title}'
            if not heat.used:
                note += (
                    ' is 0 everywhere: the score does not rest on this feature map, or is only '
                    'held down by it; choose another module, level or method'
                )
                yield SavedPicture(entry.path, None, note)
                continue
            if heat.empty:
                note += f' (0 everywhere: {", ".join(heat.empty)})'
            out_file = osp.join(out_dir, f'{osp.basename(entry.path)}.{name}{method}.png')
            save_picture(_draw(heat, entry, target, kept, title), out_file)
            yield SavedPicture(entry.path, out_file, note)


@torch.no_grad()
def _targets(
    detector: nn.Module,
    entry: DetectorInput,
    kept: InstanceData,
    boxes: Sequence[int],
    class_name: Optional[str],
) -> List[Tuple[str, Union[CamTarget, str]]]:
    """Give the name of each picture and what it explains, or why there is nothing to explain."""
    outputs = head_outputs(detector, entry.inputs)
    if class_name is not None:
        # a name such as 'car/truck' is no folder
        name = f'{class_name.replace("/", "_")}.'
        return [(name, class_target(detector, outputs, entry.sample, kept, class_name))]
    targets: List[Tuple[str, Union[CamTarget, str]]] = []
    for index in boxes:
        if index < len(kept):
            target = box_target(detector, outputs, entry.sample, kept, index)
            targets.append((f'box{index}.', target))
        else:
            targets.append(('', f'no box {index}: {len(kept)} detections'))
    return targets


def _draw(
    heat: ActivationMap,
    entry: DetectorInput,
    target: CamTarget,
    detections: InstanceData,
    title: str,
) -> np.ndarray:
    """Draw an image with its detections, what is explained in white; beside it the heat map."""
    plain, scale = enlarge(entry.picture)
    painted = paint_heat(align_to_image(heat.heat[None], entry.sample, plain.shape[:2])[0], plain)
    boxes, text = to_array(target.boxes) * scale, target.text
    explained = [DrawnBox(box, _EXPLAINED, text if len(boxes) == 1 else '') for box in boxes]
    if len(boxes) < len(detections):
        text += ' (white; other detections grey)' if len(boxes) else ' (detections grey)'
    others = [DrawnBox(box, GREY) for box in to_array(detections.bboxes) * scale]
    draw_boxes(plain, [*explained, *others])
    draw_boxes(painted, [entry._replace(text='') for entry in explained])
    return grid([plain, painted], [text, title])
