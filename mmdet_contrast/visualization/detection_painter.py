"""Ground truth and detections of one image in one picture, coloured by what is right."""

from collections import Counter
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import torch
from mmdet.registry import VISUALIZERS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox_overlaps
from mmdet.visualization import DetLocalVisualizer
from mmengine.dist import master_only
from mmengine.structures import InstanceData

from mmdet_contrast.compat import extend_palette, keep_pictures_apart

from .canvas import (
    GREY,
    Colour,
    DrawnBox,
    draw_boxes,
    draw_line_box,
    draw_text,
    enlarge,
    palette,
    save_picture,
    text_size,
    to_array,
    to_rgb,
)

extend_palette(palette)
keep_pictures_apart()

CORRECT = 'correct'
WRONG_CLASS = 'wrong class'
DUPLICATE = 'found twice'
NOTHING_THERE = 'nothing there'
IGNORED = 'ignored'
GROUND_TRUTH = 'ground truth'
MISSED = 'missed'
DETECTION = 'detection'


class _Style(NamedTuple):
    colour: Colour
    dashed: bool


#: Colour of each kind of box, and whether it is dashed, in the order of the legend.
STYLES: Dict[str, _Style] = {
    GROUND_TRUTH: _Style((165, 70, 255), False),
    CORRECT: _Style((40, 215, 80), False),
    WRONG_CLASS: _Style((255, 195, 0), False),
    NOTHING_THERE: _Style((255, 250, 70), True),
    DUPLICATE: _Style((255, 225, 40), True),
    MISSED: _Style((165, 70, 255), True),
    IGNORED: _Style(GREY, True),
    DETECTION: _Style((70, 190, 255), False),
}
_LEGEND_GROUND = (32, 32, 32)
_LEGEND_INK = (240, 240, 240)


class DetectionMatch(NamedTuple):
    """Judgement of the detections in one image.

    Attributes:
        verdicts (list[str]): (D,) what each detection is: ``'correct'``; ``'wrong class'`` (on an
            object of another class); ``'found twice'`` (on an object of its class that a surer
            detection has already found); ``'nothing there'``; or ``'ignored'`` (it lies in an
            ignored region and counts neither as right nor as wrong).
        gt_indices (ndarray): (D,) int, the object that the verdict speaks of; -1 for
            ``'nothing there'`` and ``'ignored'``.
        found (ndarray): (G,) bool, True where an object has a correct detection. The others were
            missed.
    """

    verdicts: List[str]
    gt_indices: np.ndarray
    found: np.ndarray


def match_detections(
    bboxes: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    gt_bboxes: np.ndarray,
    gt_labels: np.ndarray,
    iou_thr: float = 0.5,
    ignored_bboxes: Sequence[Sequence[float]] = (),
    ignored_labels: Sequence[int] = (),
) -> DetectionMatch:
    """Match the detections of one image to its objects, as COCO's evaluation does.

    In each class, detections choose in descending order of their score; each takes the object of
    its class that it overlaps most among those still free, if their IoU is at least ``iou_thr``. A
    detection that finds none is ignored if at least ``iou_thr`` of its own area lies in an ignored
    box of its class (COCO's rule for crowds). Beyond COCO, the rest is told apart by the object, of
    any class, that overlaps a detection most: if their IoU reaches ``iou_thr`` it is of the wrong
    class or the object is already found; otherwise nothing is there.

    Args:
        bboxes (ndarray | Tensor): (D, 4) detections, (x1, y1, x2, y2) in pixels. Tensors may be on
            any device, here and below.
        scores (ndarray | Tensor): (D,) scores. Of equal scores the earlier one goes first.
        labels (ndarray | Tensor): (D,) class indices.
        gt_bboxes (ndarray | Tensor): (G, 4) objects.
        gt_labels (ndarray | Tensor): (G,) class indices.
        iou_thr (float): Least IoU of a match, in (0, 1]. Defaults to 0.5.
        ignored_bboxes (ndarray | Tensor): (K, 4) boxes of crowds or difficult objects. Defaults to
            none.
        ignored_labels (ndarray | Tensor): (K,) their class indices.

    Returns:
        DetectionMatch: Verdict of each detection, and which objects were found.

    Example:
        >>> one = np.array([[0.0, 0, 10, 10]])
        >>> match_detections(one, np.array([0.9]), np.array([1]), one, np.array([0])).verdicts
        ['wrong class']
    """
    bboxes, labels, scores = _boxes(bboxes), _labels(labels), to_array(scores)
    gt_bboxes, gt_labels = _boxes(gt_bboxes), _labels(gt_labels)
    ious = _overlaps(bboxes, gt_bboxes, 'iou')
    inside = _overlaps(bboxes, _boxes(ignored_bboxes), 'iof') >= iou_thr
    ignored = (inside & (labels[:, None] == _labels(ignored_labels)[None])).any(1)
    same_class = labels[:, None] == gt_labels[None]
    found = np.zeros(len(gt_bboxes), bool)
    verdicts = [NOTHING_THERE] * len(bboxes)
    gt_indices = np.full(len(bboxes), -1)
    for index in np.argsort(-scores, kind='stable'):
        free = np.flatnonzero(same_class[index] & ~found & (ious[index] >= iou_thr))
        if len(free):
            # Of equal overlaps COCO takes the last.
            best = free[::-1][np.argmax(ious[index, free[::-1]])]
            found[best] = True
            verdicts[index], gt_indices[index] = CORRECT, best
        elif ignored[index]:
            verdicts[index] = IGNORED
        elif len(gt_bboxes) and ious[index].max() >= iou_thr:
            best = int(ious[index].argmax())
            verdicts[index] = DUPLICATE if same_class[index, best] else WRONG_CLASS
            gt_indices[index] = best
    return DetectionMatch(verdicts, gt_indices, found)


def _boxes(boxes: Any) -> np.ndarray:
    return to_array(boxes).astype(float).reshape(-1, 4)


def _labels(labels: Any) -> np.ndarray:
    return to_array(labels).astype(int)


def _overlaps(first: np.ndarray, second: np.ndarray, mode: str) -> np.ndarray:
    """Compute (N, M) overlaps in float64, so that a threshold is met as COCO's tools meet it."""
    return bbox_overlaps(torch.from_numpy(first), torch.from_numpy(second), mode).numpy()


def draw_detections(
    image: np.ndarray,
    sample: DetDataSample,
    classes: Optional[Sequence[str]] = None,
    score_thr: float = 0.3,
    iou_thr: float = 0.5,
) -> np.ndarray:
    """Draw one image with its ground truth, its detections, and which of them are right.

    Ground truth is purple. A correct detection is green; a wrong one is yellow: solid, with the
    true class in its label, where an object of another class is; dashed where nothing is; dashed
    and labelled "found twice" where a surer detection has found the object already. Objects without
    a correct detection are dashed and labelled "missed". Ignored regions, and detections in them,
    are grey. :func:`match_detections` says which is which. The legend below the picture counts
    them.

    Args:
        image (ndarray): (H, W, 3) uint8 RGB.
        sample (DetDataSample): ``gt_instances`` (without them there is nothing to judge by, and
            detections are blue), ``ignored_instances`` (crowd, difficult) and ``pred_instances``
            (without them nothing is missed), with boxes in pixels of the image, on any device.
        classes (Sequence[str], optional): Class names. None writes the indices.
        score_thr (float): Detections with a lower score are left out, as are those with a score or
            a box that is not finite; the legend counts these. Defaults to 0.3.
        iou_thr (float): See :func:`match_detections`. Defaults to 0.5.

    Returns:
        ndarray: (H', W', 3) uint8 RGB picture. Lines and letters grow with it, and are smaller
        where objects are small or many.
    """
    gt, found = sample.get('gt_instances'), sample.get('pred_instances')
    gt_bboxes, gt_labels, _, _ = _arrays(gt)
    ignored_bboxes, ignored_labels, _, _ = _arrays(sample.get('ignored_instances'))
    bboxes, labels, scores, broken = _arrays(found)
    # Descending, so that the surest detection gets the best place for its label.
    kept = np.argsort(-scores, kind='stable')
    kept = kept[scores[kept] >= score_thr]
    bboxes, labels, scores = bboxes[kept], labels[kept], scores[kept]
    match = None
    if gt is not None and found is not None:
        match = match_detections(
            bboxes, scores, labels, gt_bboxes, gt_labels, iou_thr, ignored_bboxes, ignored_labels
        )

    def name(label: int) -> str:
        return classes[label] if classes and label < len(classes) else f'class {label}'

    above, below = [], []
    for index, (box, label, score) in enumerate(zip(bboxes, labels, scores)):
        kind = DETECTION if match is None else match.verdicts[index]
        text = f'{name(label)} {score:.2f}'
        if match is not None and kind == WRONG_CLASS:
            text += f', is {name(gt_labels[match.gt_indices[index]])}'
        above.append((box, kind, f'{text}, {kind}' if kind == DUPLICATE else text))
    for index, (box, label) in enumerate(zip(gt_bboxes, gt_labels)):
        if match is None:
            below.append((box, GROUND_TRUTH, name(label)))
        elif match.found[index]:
            # The correct detection on it bears the same name.
            below.append((box, GROUND_TRUTH, ''))
        else:
            below.append((box, MISSED, f'missed {name(label)}'))
    below += [(box, IGNORED, IGNORED) for box in ignored_bboxes]

    picture, scale = enlarge(image)
    # Found ground truth is wide and lies below, so that it shows on either side of a detection
    # that covers it exactly.
    draw_boxes(
        picture,
        [
            DrawnBox(
                box * scale,
                STYLES[kind].colour,
                text,
                STYLES[kind].dashed,
                wide=kind == GROUND_TRUTH,
                below=bool(above) and place >= len(above),
            )
            for place, (box, kind, text) in enumerate(above + below)
        ],
    )
    counts = Counter(kind for _, kind, _ in above + below)
    always: Sequence[str] = ()
    if match is not None:
        # Missed objects are ground truth too.
        counts[GROUND_TRUTH] = len(gt_bboxes)
        always = (GROUND_TRUTH, CORRECT, WRONG_CLASS, NOTHING_THERE, MISSED)
    legend = {kind: f'{kind} {counts[kind]}' for kind in STYLES if counts[kind] or kind in always}
    if found is not None:
        legend[''] = f'score ≥ {score_thr:g}' + (f', IoU ≥ {iou_thr:g}' if match else '')
        legend[''] += f', {broken} not finite' if broken else ''
    return _add_legend(picture, legend) if legend else picture


def _arrays(instances: Optional[InstanceData]) -> Tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Copy boxes, labels and scores that are finite, and count the others."""
    if instances is None:
        return np.zeros((0, 4)), np.zeros(0, int), np.zeros(0), 0
    boxes, labels = _boxes(instances.bboxes), _labels(instances.labels)
    scores = to_array(instances.get('scores', np.ones(len(boxes)))).astype(float)
    finite = np.isfinite(boxes).all(1) & np.isfinite(scores)
    return boxes[finite], labels[finite], scores[finite], int((~finite).sum())


def _add_legend(picture: np.ndarray, legend: Dict[str, str]) -> np.ndarray:
    """Append a strip that says what the colours mean, and how many boxes of each there are."""
    font = max(12, round(max(picture.shape[:2]) / 52))
    pad, sample = font // 2, 2 * font
    tall = text_size('', font)[1] + pad
    places, x, y, right = [], font, pad, picture.shape[1]
    for kind, text in legend.items():
        width = text_size(text, font)[0] + font + (sample + pad if kind else 0)
        if x > font and x + width > picture.shape[1]:
            x, y = font, y + tall
        places.append((x, y, kind, text))
        x += width
        right = max(right, x)
    sheet = np.full((len(picture) + y + tall, right, 3), _LEGEND_GROUND, np.uint8)
    sheet[: len(picture), : picture.shape[1]] = picture
    strip = sheet[len(picture) :]
    for x, y, kind, text in places:
        if kind:
            box = (x, y + pad // 2, x + sample, y + tall - pad - pad // 2)
            draw_line_box(strip, box, *STYLES[kind], max(2, font // 7), 0)
            x += sample + pad
        draw_text(strip, x, y, text, _LEGEND_INK, font)
    return sheet


@VISUALIZERS.register_module()
class DetectionPainter(DetLocalVisualizer):
    """Paint ground truth purple, correct detections green and wrong ones yellow, in one picture.

    It takes the place of ``DetLocalVisualizer``, which puts ground truth and detections side by
    side and leaves the comparison to the reader. MMDetection's ``DetVisualizationHook`` uses it
    unchanged, in validation (``draw=True``) and with ``--show-dir``. What is drawn how:
    :func:`mmdet_contrast.visualization.draw_detections`. Only boxes are drawn; of instance
    segmentation, the boxes of the instances.

    Ground truth comes from the test pipeline's ``LoadAnnotations``, which stands after ``Resize``
    in MMDetection's configs, so that boxes are in pixels of the original image. Where the pipeline
    loads none, detections are blue, for there is nothing to judge them by.

    Args:
        name (str): Name of the instance. Defaults to 'visualizer'.
        image (ndarray, optional): (H, W, 3) uint8 RGB image to begin with.
        vis_backends (list, optional): Configs of the backends.
        save_dir (str, optional): Folder of the backends.
        iou_thr (float): Least IoU of a correct detection, in (0, 1]. Defaults to 0.5.

    Example:
        >>> # in a config
        >>> visualizer = dict(
        ...     type='DetectionPainter',
        ...     name='visualizer',
        ...     vis_backends=[dict(type='LocalVisBackend')],
        ... )
        >>> default_hooks = dict(visualization=dict(type='DetVisualizationHook', draw=True))
    """

    def __init__(
        self,
        name: str = 'visualizer',
        image: Optional[np.ndarray] = None,
        vis_backends: Optional[list] = None,
        save_dir: Optional[str] = None,
        iou_thr: float = 0.5,
    ) -> None:
        super().__init__(name=name, image=image, vis_backends=vis_backends, save_dir=save_dir)
        self.iou_thr = iou_thr

    @master_only
    def add_datasample(
        self,
        name: str,
        image: np.ndarray,
        data_sample: Optional[DetDataSample] = None,
        draw_gt: bool = True,
        draw_pred: bool = True,
        show: bool = False,
        wait_time: float = 0,
        out_file: Optional[str] = None,
        pred_score_thr: float = 0.3,
        step: int = 0,
    ) -> None:
        """Paint one image, and show it, write it to a file or hand it to the backends.

        Args:
            name (str): Name of the picture.
            image (ndarray): RGB image, or what else :func:`~.canvas.to_rgb` takes.
            data_sample (DetDataSample, optional): With ``gt_instances``, ``ignored_instances`` and
                ``pred_instances``, as far as there are any, on any device. None leaves the image
                as it is.
            draw_gt (bool): Whether to draw and to judge by the ground truth. Defaults to True.
            draw_pred (bool): Whether to draw the detections. Defaults to True.
            show (bool): Whether to open a window. Defaults to False.
            wait_time (float): Seconds to show it for; 0 waits for a key. Defaults to 0.
            out_file (str, optional): File to write. Without it the picture goes to the backends.
            pred_score_thr (float): Detections with a lower score are left out. Defaults to 0.3.
            step (int): Step that the backends record. Defaults to 0.
        """
        picture = to_rgb(image)
        if data_sample is not None:
            names = ['gt_instances', 'ignored_instances'] * draw_gt + ['pred_instances'] * draw_pred
            shown = DetDataSample()
            for key in names:
                if 'bboxes' in data_sample.get(key, ()):
                    setattr(shown, key, data_sample.get(key))
            classes = self.dataset_meta.get('classes')
            picture = draw_detections(picture, shown, classes, pred_score_thr, self.iou_thr)
        self.set_image(picture)
        if show:
            self.show(picture, win_name=name, wait_time=wait_time)
        if out_file is not None:
            save_picture(picture, out_file)
        else:
            self.add_image(name, picture, step)
