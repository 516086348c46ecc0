"""Which detection found which object: the judgement behind the colours of a picture."""

from dataclasses import dataclass
from typing import List, Optional, Tuple

import numpy as np
import torch
from mmdet.structures.bbox import bbox_overlaps

CORRECT = 'correct'
WRONG_CLASS = 'wrong class'
DUPLICATE = 'found twice'
NOTHING_THERE = 'nothing there'
IGNORED = 'ignored'


@dataclass
class DetectionMatch:
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

    def count(self, verdict: str) -> int:
        """Number of detections with a verdict."""
        return self.verdicts.count(verdict)

    @property
    def num_missed(self) -> int:
        """Number of objects without a correct detection."""
        return int((~self.found).sum())


def match_detections(
    bboxes: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    gt_bboxes: np.ndarray,
    gt_labels: np.ndarray,
    iou_thr: float = 0.5,
    ignored_bboxes: Optional[np.ndarray] = None,
    ignored_labels: Optional[np.ndarray] = None,
) -> DetectionMatch:
    """Match the detections of one image to its objects, as COCO's evaluation does.

    In each class, detections choose in descending order of their score; each takes the object of
    its class that it overlaps most among those still free, if their IoU is at least ``iou_thr``. A
    detection that finds none is ignored if at least ``iou_thr`` of its own area lies in an ignored
    box of its class (COCO's rule for crowds). Beyond COCO, the rest is told apart by the object, of
    any class, that overlaps a detection most: if their IoU reaches ``iou_thr`` it is of the wrong
    class or the object is already found; otherwise nothing is there.

    Args:
        bboxes (ndarray): (D, 4) detections, (x1, y1, x2, y2) in pixels.
        scores (ndarray): (D,) scores. Of equal scores the earlier one goes first.
        labels (ndarray): (D,) class indices.
        gt_bboxes (ndarray): (G, 4) objects.
        gt_labels (ndarray): (G,) class indices.
        iou_thr (float): Least IoU of a match, in (0, 1]. Defaults to 0.5.
        ignored_bboxes (ndarray, optional): (K, 4) boxes of crowds or difficult objects.
        ignored_labels (ndarray, optional): (K,) their class indices. Without them the ignored
            boxes hold for every class.

    Returns:
        DetectionMatch: Verdict of each detection, and which objects were found.

    Raises:
        ValueError: If ``iou_thr`` is out of range, or boxes, scores and labels differ in number.

    Example:
        >>> one = np.array([[0.0, 0, 10, 10]])
        >>> match_detections(one, np.array([0.9]), np.array([1]), one, np.array([0])).verdicts
        ['wrong class']
    """
    if not 0 < iou_thr <= 1:
        raise ValueError(f'iou_thr is {iou_thr}, but an IoU threshold lies in (0, 1].')
    bboxes, labels = _checked('detections', bboxes, labels)
    gt_bboxes, gt_labels = _checked('ground truth', gt_bboxes, gt_labels)
    scores = np.asarray(scores, np.float64).reshape(-1)
    if len(scores) != len(bboxes):
        raise ValueError(f'there are {len(bboxes)} detections but {len(scores)} scores.')

    ious = _overlaps(bboxes, gt_bboxes, 'iou')
    ignored = _in_ignored(bboxes, labels, ignored_bboxes, ignored_labels, iou_thr)
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


def _checked(what: str, bboxes: np.ndarray, labels: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """Boxes as (N, 4) float64 and labels as (N,) int64."""
    bboxes = np.asarray(bboxes, np.float64)
    labels = np.asarray(labels, np.int64).reshape(-1)
    if bboxes.size == 0:
        bboxes = bboxes.reshape(0, 4)
    if bboxes.ndim != 2 or bboxes.shape[1] != 4:
        raise ValueError(
            f'the boxes of the {what} have shape {bboxes.shape}, but boxes are (N, 4): '
            'x1, y1, x2, y2 in pixels.'
        )
    if len(labels) != len(bboxes):
        raise ValueError(f'{what}: there are {len(bboxes)} boxes but {len(labels)} labels.')
    return bboxes, labels


def _overlaps(first: np.ndarray, second: np.ndarray, mode: str) -> np.ndarray:
    """(N, M) overlaps in float64, so that a threshold is met as COCO's tools meet it."""
    return bbox_overlaps(torch.from_numpy(first), torch.from_numpy(second), mode).numpy()


def _in_ignored(
    bboxes: np.ndarray,
    labels: np.ndarray,
    ignored_bboxes: Optional[np.ndarray],
    ignored_labels: Optional[np.ndarray],
    iou_thr: float,
) -> np.ndarray:
    """(D,) True where a detection lies in an ignored box of its class."""
    if ignored_bboxes is None or len(ignored_bboxes) == 0:
        return np.zeros(len(bboxes), bool)
    every_class = ignored_labels is None
    regions, region_labels = _checked(
        'ignored boxes',
        ignored_bboxes,
        np.zeros(len(ignored_bboxes)) if every_class else ignored_labels,
    )
    inside = _overlaps(bboxes, regions, 'iof') >= iou_thr
    if not every_class:
        inside &= labels[:, None] == region_labels[None]
    return inside.any(1)
