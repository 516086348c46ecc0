"""Ground truth and detections of one image in one picture, coloured by what was right."""

from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from mmdet_contrast.visualization.canvas import (
    GREY,
    Colour,
    Rectangle,
    draw_box,
    draw_label,
    draw_text,
    enlarge,
    text_size,
)
from mmdet_contrast.visualization.matching import (
    CORRECT,
    DUPLICATE,
    IGNORED,
    NOTHING_THERE,
    WRONG_CLASS,
    DetectionMatch,
    match_detections,
)


class _Style(NamedTuple):
    colour: Colour
    dashed: bool


GROUND_TRUTH = 'ground truth'
MISSED = 'missed'
DETECTION = 'detection'
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


class _Box(NamedTuple):
    box: np.ndarray
    kind: str
    text: str = ''


def draw_detections(
    image: np.ndarray,
    gt_bboxes: Optional[np.ndarray],
    gt_labels: Optional[Sequence[int]],
    bboxes: Optional[np.ndarray],
    labels: Optional[Sequence[int]],
    scores: Optional[Sequence[float]],
    classes: Optional[Sequence[str]],
    score_thr: float = 0.3,
    min_panel: int = 640,
    iou_thr: float = 0.5,
    ignored_bboxes: Optional[np.ndarray] = None,
    ignored_labels: Optional[Sequence[int]] = None,
    line_width: Optional[int] = None,
    font_size: Optional[int] = None,
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
        gt_bboxes (ndarray, optional): (G, 4) ground truth, (x1, y1, x2, y2) in pixels. None where
            there is none to judge by: the detections are then blue.
        gt_labels (Sequence[int], optional): (G,) class indices.
        bboxes (ndarray, optional): (D, 4) detections. None draws the ground truth alone, in which
            nothing is missed.
        labels (Sequence[int], optional): (D,) class indices.
        scores (Sequence[float], optional): (D,) scores in [0, 1].
        classes (Sequence[str], optional): Class names. None writes the indices.
        score_thr (float): Detections with a lower score are left out. Defaults to 0.3.
        min_panel (int): Smaller images are enlarged by a whole factor until their longer side
            reaches this many pixels. Defaults to 640.
        iou_thr (float): See :func:`match_detections`. Defaults to 0.5.
        ignored_bboxes (ndarray, optional): (K, 4) boxes that take no part (crowd, difficult).
        ignored_labels (Sequence[int], optional): (K,) their class indices; without them they hold
            for every class.
        line_width (int, optional): In pixels of the picture. Grows with the picture by default, and
            is smaller where objects are small or many.
        font_size (int, optional): In pixels of the picture; the default follows ``line_width``'s
            rule.

    Returns:
        ndarray: (H', W', 3) uint8 RGB picture.

    Raises:
        ValueError: If a label has no class name; see also :func:`match_detections`.
    """
    ignored = _boxes(ignored_bboxes)
    drawn: List[_Box] = [_Box(box, IGNORED, 'ignored') for box in ignored]
    if gt_bboxes is not None:
        gt_bboxes, gt_labels = _boxes(gt_bboxes), np.asarray(gt_labels, int).reshape(-1)
    match, kept = None, None
    if bboxes is not None:
        scores = np.asarray(scores, float).reshape(-1)
        kept = np.flatnonzero(scores >= score_thr)
        # Descending, so that the surest detection gets the best place for its label.
        kept = kept[np.argsort(-scores[kept], kind='stable')]
        bboxes, scores = _boxes(bboxes)[kept], scores[kept]
        labels = np.asarray(labels, int).reshape(-1)[kept]
        if gt_bboxes is not None:
            match = match_detections(
                bboxes, scores, labels, gt_bboxes, gt_labels, iou_thr, ignored, ignored_labels
            )
    if gt_bboxes is not None:
        drawn += _describe_truth(gt_bboxes, gt_labels, match, classes)
    if bboxes is not None:
        drawn += _describe_found(bboxes, labels, scores, gt_labels, match, classes)

    picture, scale = enlarge(image, min_panel)
    line, font = _sizes(picture.shape[:2], [entry.box * scale for entry in drawn])
    line, font = line_width or line, font_size or font
    _draw_boxes(picture, drawn, scale, line, font)
    note = '' if bboxes is None else f'score ≥ {score_thr:g}'
    note += '' if match is None else f', IoU ≥ {iou_thr:g}'
    return _add_legend(picture, _count(drawn, match), note, line, max(font, _base_font(picture)))


def _boxes(boxes: Optional[np.ndarray]) -> np.ndarray:
    return np.zeros((0, 4)) if boxes is None else np.asarray(boxes, float).reshape(-1, 4)


def _name(classes: Optional[Sequence[str]], label: int) -> str:
    if classes is None:
        return f'class {label}'
    if not 0 <= label < len(classes):
        raise ValueError(
            f'a box has the label {label}, but there are {len(classes)} class names '
            f'({", ".join(classes)}): do the metainfo of the data set and num_classes agree?'
        )
    return classes[label]


def _describe_truth(
    bboxes: np.ndarray,
    labels: np.ndarray,
    match: Optional[DetectionMatch],
    classes: Optional[Sequence[str]],
) -> List[_Box]:
    entries = []
    for index, (box, label) in enumerate(zip(bboxes, labels)):
        name = _name(classes, label)
        if match is None:
            entries.append(_Box(box, GROUND_TRUTH, name))
        elif match.found[index]:
            # The correct detection on it bears the same name.
            entries.append(_Box(box, GROUND_TRUTH))
        else:
            entries.append(_Box(box, MISSED, f'missed {name}'))
    return entries


def _describe_found(
    bboxes: np.ndarray,
    labels: np.ndarray,
    scores: np.ndarray,
    gt_labels: Optional[np.ndarray],
    match: Optional[DetectionMatch],
    classes: Optional[Sequence[str]],
) -> List[_Box]:
    entries = []
    for index, (box, label, score) in enumerate(zip(bboxes, labels, scores)):
        kind = DETECTION if match is None else match.verdicts[index]
        text = f'{_name(classes, label)} {score:.2f}'
        if kind == WRONG_CLASS:
            text += f', is {_name(classes, gt_labels[match.gt_indices[index]])}'
        elif kind == DUPLICATE:
            text += f', {DUPLICATE}'
        entries.append(_Box(box, kind, text))
    return entries


def _base_font(picture: np.ndarray) -> int:
    return max(12, round(max(picture.shape[:2]) / 52))


def _sizes(shape: Tuple[int, int], boxes: Sequence[np.ndarray]) -> Tuple[int, int]:
    """Line width and font size: with the picture, less where objects are small or many."""
    longer, shrink = max(shape), 1.0
    if boxes:
        sides = [np.sqrt(np.prod(np.maximum(box[2:] - box[:2], 1))) for box in boxes]
        shrink = min(np.median(sides) / (0.06 * longer), (30 / len(boxes)) ** 0.5, 1.0)
    shrink = max(shrink, 0.55)
    return max(2, round(shrink * longer / 340)), max(11, round(shrink * longer / 52))


def _draw_boxes(
    picture: np.ndarray, drawn: Sequence[_Box], scale: int, line: int, font: int
) -> None:
    truth = (GROUND_TRUTH, MISSED, IGNORED)
    edge = max(1, line // 3)
    # Found ground truth is wider and lies below, so that it shows on either side of a detection
    # that covers it exactly; of the detections the surest, which comes first, lies on top.
    below = [entry for entry in drawn if entry.kind in truth]
    above = [entry for entry in drawn if entry.kind not in truth]
    for entry in below + above[::-1]:
        style = STYLES[entry.kind]
        width = line + 2 * edge + 2 * max(1, line // 3) if entry.kind == GROUND_TRUTH else line
        draw_box(picture, entry.box * scale, style.colour, style.dashed, width, edge)
    taken: List[Rectangle] = []
    for entry in above + below:
        if entry.text:
            colour = STYLES[entry.kind].colour
            under = entry.kind in truth and bool(above)
            draw_label(picture, entry.box * scale, entry.text, colour, font, taken, under)


def _count(drawn: Sequence[_Box], match: Optional[DetectionMatch]) -> Dict[str, int]:
    """Numbers for the legend; what cannot occur, or rarely does, is left out at zero."""
    counts = {kind: sum(entry.kind == kind for entry in drawn) for kind in STYLES}
    if match is not None:
        # Missed objects are ground truth too.
        counts[GROUND_TRUTH] = len(match.found)
        always = [GROUND_TRUTH, CORRECT, WRONG_CLASS, NOTHING_THERE, MISSED]
    else:
        always = []
    return {kind: number for kind, number in counts.items() if number or kind in always}


def _add_legend(
    picture: np.ndarray, counts: Dict[str, int], note: str, line: int, font: int
) -> np.ndarray:
    """Append a strip that says what the colours mean, and how many boxes of each there are."""
    gap, sample, pad = font, 2 * font, font // 2
    entries = [(kind, f'{kind} {number}') for kind, number in counts.items()]
    entries += [('', note)] if note else []
    rows: List[List[Tuple[int, str, str]]] = [[]]
    x = gap
    for kind, text in entries:
        width = text_size(text, font)[0] + (sample + pad if kind else 0)
        if rows[-1] and x + width + gap > picture.shape[1]:
            rows.append([])
            x = gap
        rows[-1].append((x, kind, text))
        x += width + gap
    if not entries:
        return picture
    tall = text_size('', font)[1] + pad
    widest = max(
        x + text_size(text, font)[0] + (sample + pad if kind else 0) + gap
        for row in rows
        for x, kind, text in row
    )
    full = (picture.shape[0] + tall * len(rows) + pad, max(picture.shape[1], widest), 3)
    sheet = np.full(full, _LEGEND_GROUND, np.uint8)
    sheet[: picture.shape[0], : picture.shape[1]] = picture
    for number, row in enumerate(rows):
        y = picture.shape[0] + pad + number * tall
        for x, kind, text in row:
            if kind:
                box = (x, y + pad // 2, x + sample, y + tall - pad - pad // 2)
                wide = max(2, font // 7)
                draw_box(sheet, box, STYLES[kind].colour, STYLES[kind].dashed, wide, 0)
                x += sample + pad
            draw_text(sheet, x, y, text, _LEGEND_INK, font)
    return sheet
