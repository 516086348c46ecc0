"""Which detection found which object: by hand, against a slow loop, and against pycocotools."""

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmdet_contrast.visualization import match_detections

BOX = np.array([[0.0, 0, 10, 10]])
FAR = np.array([[50.0, 50, 60, 60]])
NONE = np.zeros((0, 4))


def verdicts(bboxes, scores, labels, gt_bboxes, gt_labels, **options):
    return match_detections(
        bboxes, np.array(scores), np.array(labels), gt_bboxes, np.array(gt_labels), **options
    )


def iou(a, b):
    width = max(min(a[2], b[2]) - max(a[0], b[0]), 0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    area = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / area


def slow(bboxes, scores, labels, gt_bboxes, gt_labels, iou_thr):
    result, indices, found = {}, {}, set()
    for d in sorted(range(len(bboxes)), key=lambda d: -scores[d]):
        overlaps = [iou(bboxes[d], box) for box in gt_bboxes]
        free = [g for g in range(len(gt_bboxes)) if gt_labels[g] == labels[d] and g not in found]
        free = [g for g in free if overlaps[g] >= iou_thr]
        near = [g for g in range(len(gt_bboxes)) if overlaps[g] >= iou_thr]
        if free:
            indices[d] = max(free, key=lambda g: overlaps[g])
            result[d] = 'correct'
            found.add(indices[d])
        elif near:
            indices[d] = max(near, key=lambda g: overlaps[g])
            same = gt_labels[indices[d]] == labels[d]
            result[d] = 'found twice' if same else 'wrong class'
        else:
            result[d], indices[d] = 'nothing there', -1
    number = range(len(bboxes))
    missed = len(gt_bboxes) - len(found)
    return [result[d] for d in number], [indices[d] for d in number], found, missed


def scene(seed, num_gt=12, num_det=25):
    rng = np.random.default_rng(seed)
    corner, side = rng.uniform(0, 60, (num_gt, 2)), rng.uniform(10, 40, (num_gt, 2))
    gt_bboxes = np.hstack([corner, corner + side])
    bboxes = gt_bboxes[rng.integers(0, num_gt, num_det)] + rng.normal(0, 3, (num_det, 4))
    scores = rng.permutation(num_det) / num_det
    gt_labels = rng.integers(0, 3, num_gt)
    return bboxes, scores, rng.integers(0, 3, num_det), gt_bboxes, gt_labels


def test_each_verdict_by_hand():
    bboxes = np.vstack([BOX, BOX + 1, BOX, FAR])
    match = verdicts(
        bboxes, [0.9, 0.8, 0.7, 0.6], [0, 0, 1, 0], np.vstack([BOX, BOX + 200]), [0, 1]
    )
    assert match.verdicts == ['correct', 'found twice', 'wrong class', 'nothing there']
    assert match.gt_indices.tolist() == [0, 0, 0, -1]
    assert match.found.tolist() == [True, False] and match.num_missed == 1
    assert match.count('correct') == 1


def test_the_surer_detection_goes_first_and_takes_what_it_overlaps_most():
    gt_bboxes = np.vstack([BOX, BOX + [2, 0, 2, 0]])
    # The second is surer and lies on the first object, which the first one would prefer too.
    match = verdicts(np.vstack([BOX, BOX]), [0.5, 0.9], [0, 0], gt_bboxes, [0, 0])
    assert match.verdicts == ['correct', 'correct']
    assert match.gt_indices.tolist() == [1, 0]


def test_the_threshold_is_reached_at_equality():
    # IoU = 5 * 10 / 100
    half = np.array([[0.0, 0, 5, 10]])
    assert verdicts(half, [0.9], [0], BOX, [0], iou_thr=0.5).verdicts == ['correct']
    assert verdicts(half, [0.9], [0], BOX, [0], iou_thr=0.51).verdicts == ['nothing there']


def test_ignored_boxes_take_no_part():
    crowd = np.array([[0.0, 0, 100, 100]])
    # By its IoU, 0.01, the detection would be nowhere near; by its own area it lies within.
    inside = verdicts(BOX, [0.9], [0], NONE, [], ignored_bboxes=crowd, ignored_labels=[0])
    assert inside.verdicts == ['ignored'] and inside.gt_indices.tolist() == [-1]
    other = verdicts(BOX, [0.9], [1], NONE, [], ignored_bboxes=crowd, ignored_labels=[0])
    assert other.verdicts == ['nothing there']
    assert verdicts(BOX, [0.9], [1], NONE, [], ignored_bboxes=crowd).verdicts == ['ignored']
    # An object is preferred to the crowd around it.
    real = verdicts(BOX, [0.9], [0], BOX, [0], ignored_bboxes=crowd, ignored_labels=[0])
    assert real.verdicts == ['correct']


def test_nothing_found_and_nothing_to_find():
    assert verdicts(NONE, [], [], BOX, [0]).num_missed == 1
    assert verdicts(BOX, [0.9], [0], NONE, []).verdicts == ['nothing there']
    assert verdicts([], [], [], [], []).verdicts == []


@pytest.mark.parametrize('seed', range(8))
@pytest.mark.parametrize('iou_thr', [0.3, 0.5, 0.75])
def test_like_a_slow_loop(seed, iou_thr):
    data = scene(seed)
    match = match_detections(*data, iou_thr)
    expected, indices, found, missed = slow(*data, iou_thr)
    assert match.verdicts == expected
    assert match.gt_indices.tolist() == indices
    assert set(np.flatnonzero(match.found)) == found and match.num_missed == missed


@pytest.mark.parametrize('seed', range(4))
def test_right_and_ignored_are_those_of_pycocotools(seed, capsys):
    bboxes, scores, labels, gt_bboxes, gt_labels = scene(seed)
    crowd = np.arange(len(gt_bboxes)) % 4 == 0
    categories = [dict(id=n, name=str(n)) for n in range(3)]

    def entries(boxes, classes):
        for number, (box, label) in enumerate(zip(boxes, classes), 1):
            size = box[2:] - box[:2]
            xywh = [*box[:2].tolist(), *size.tolist()]
            common = dict(image_id=1, category_id=int(label), bbox=xywh, area=float(size.prod()))
            yield dict(common, id=number)

    truth = COCO()
    annotations = list(entries(gt_bboxes, gt_labels))
    for annotation, flag in zip(annotations, crowd):
        annotation['iscrowd'] = int(flag)
    truth.dataset = dict(images=[dict(id=1)], annotations=annotations, categories=categories)
    truth.createIndex()
    found = list(entries(bboxes, labels))
    for item, score in zip(found, scores):
        item['score'] = float(score)
    evaluation = COCOeval(truth, truth.loadRes(found), 'bbox')
    evaluation.params.iouThrs = np.array([0.5])
    evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ['all']
    evaluation.evaluate()
    expected = {}
    for result in filter(None, evaluation.evalImgs):
        for d, matched, ignored in zip(
            result['dtIds'], result['dtMatches'][0], result['dtIgnore'][0]
        ):
            expected[d] = 'ignored' if ignored else 'correct' if matched else 'wrong'

    match = match_detections(
        bboxes, scores, labels, gt_bboxes[~crowd], gt_labels[~crowd], 0.5,
        gt_bboxes[crowd], gt_labels[crowd],
    )  # fmt: skip
    for number, verdict in enumerate(match.verdicts, 1):
        assert expected[number] == (verdict if verdict in ('correct', 'ignored') else 'wrong')
    assert 'correct' in expected.values() and 'ignored' in expected.values()


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(iou_thr=0), r'iou_thr is 0, but an IoU threshold lies in \(0, 1\]'),
        (dict(scores=np.ones(2)), '1 detections but 2 scores'),
        (dict(labels=np.zeros(3)), 'detections: there are 1 boxes but 3 labels'),
        (dict(gt_bboxes=np.zeros((1, 5))), r'boxes of the ground truth have shape \(1, 5\)'),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    given = dict(
        bboxes=BOX, scores=np.ones(1), labels=np.zeros(1), gt_bboxes=BOX, gt_labels=np.zeros(1)
    )
    with pytest.raises(ValueError, match=message):
        match_detections(**{**given, **change})
