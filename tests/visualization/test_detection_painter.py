"""Detections judged and painted: by hand, against a slow loop, pycocotools, and in a Runner."""

import json

import cv2
import numpy as np
import pytest
import torch
from mmdet.registry import VISUALIZERS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmdet_contrast.visualization import canvas, detection_painter
from mmdet_contrast.visualization.detection_painter import (
    STYLES,
    draw_detections,
    match_detections,
)

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
    return [result[d] for d in number], [indices[d] for d in number], found


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
    assert match.found.tolist() == [True, False]


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
    # An object is preferred to the crowd around it.
    real = verdicts(BOX, [0.9], [0], BOX, [0], ignored_bboxes=crowd, ignored_labels=[0])
    assert real.verdicts == ['correct']


def test_nothing_found_and_nothing_to_find():
    assert verdicts(NONE, [], [], BOX, [0]).found.tolist() == [False]
    assert verdicts(BOX, [0.9], [0], NONE, []).verdicts == ['nothing there']
    assert verdicts([], [], [], [], []).verdicts == []


@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize('iou_thr', [0.3, 0.5])
def test_like_a_slow_loop(seed, iou_thr):
    data = scene(seed)
    match = match_detections(*data, iou_thr)
    expected, indices, found = slow(*data, iou_thr)
    assert match.verdicts == expected
    assert match.gt_indices.tolist() == indices
    assert set(np.flatnonzero(match.found)) == found


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


SIZE = 640
OBJECT = np.array([60.0, 180, 300, 420])
OTHER = np.array([360.0, 360, 540, 540])


def instances(boxes, labels, **fields):
    boxes = torch.tensor(np.array(boxes)).reshape(-1, 4)
    return InstanceData(bboxes=boxes, labels=torch.tensor(labels).long(), **fields)


def draw(gt, found, classes=('cat', 'dog')):
    """``gt`` is a list of (box, label), ``found`` one of (box, label, score); None for none."""
    data = DetDataSample()
    if gt is not None:
        data.gt_instances = instances([box for box, _ in gt], [label for _, label in gt])
    if found is not None:
        data.pred_instances = instances(
            [x[0] for x in found],
            [x[1] for x in found],
            scores=torch.tensor([float(x[2]) for x in found]),
        )
    return draw_detections(np.zeros((SIZE, SIZE, 3), np.uint8), data, classes)


def kinds(picture, size=SIZE):
    """What is drawn above the legend."""
    area = picture[:size, :size]
    drawn = {
        kind: int((area == np.array(style.colour)).all(-1).sum()) for kind, style in STYLES.items()
    }
    return {kind for kind, number in drawn.items() if number}


PURPLE = {'ground truth', 'missed'}  # of one colour


@pytest.mark.parametrize(
    'gt, found, expected',
    [
        ([(OBJECT, 0)], [(OBJECT + 3, 0, 0.9)], PURPLE | {'correct'}),
        ([(OBJECT, 0)], [(OBJECT + 3, 1, 0.9)], PURPLE | {'wrong class'}),
        ([(OBJECT, 0)], [(OTHER, 0, 0.9)], PURPLE | {'nothing there'}),
        (
            [(OBJECT, 0)],
            [(OBJECT, 0, 0.9), (OBJECT + 9, 0, 0.8)],
            PURPLE | {'correct', 'found twice'},
        ),
        ([(OBJECT, 0)], [], PURPLE),
        ([(OBJECT, 0)], [(OBJECT, 0, 0.2)], PURPLE),
        ([], [(OBJECT, 0, 0.9)], {'nothing there'}),
        (None, [(OBJECT, 0, 0.9)], {'detection'}),
        ([(OBJECT, 0)], None, PURPLE),
        ([], [], set()),
        (None, None, set()),
    ],
)
def test_each_kind_has_its_colour(gt, found, expected):
    assert kinds(draw(gt, found)) == expected


def test_found_is_solid_and_missed_is_dashed():
    shares = []
    # Without labels' help: in the right column, clear of the label below.
    for found in ([(OBJECT, 0, 0.9)], []):
        column = draw([(OBJECT, 0)], found)[200:400, 296:305]
        shares.append((column == np.array(STYLES['missed'].colour)).all(-1).any(1).mean())
    assert shares[0] == 1 and 0.3 < shares[1] < 0.8


def test_the_true_class_is_written_on_a_wrong_one(monkeypatch):
    texts = []
    for module in (canvas, detection_painter):
        monkeypatch.setattr(module, 'draw_text', lambda *args: texts.append(args[3]))
    draw([(OBJECT, 0), (OTHER, 1)], [(OBJECT, 1, 0.75)])
    assert texts[:3] == ['dog 0.75, is cat', 'missed cat', 'missed dog']
    assert texts[3:] == [
        'ground truth 2',
        'correct 0',
        'wrong class 1',
        'nothing there 0',
        'missed 2',
        'score ≥ 0.3, IoU ≥ 0.5',
    ]


SIDE = 64
CORNERS = [8.0, 16, 40, 48]


def sample(gt=True, found=True, **options):
    data = DetDataSample()
    if gt:
        data.gt_instances = InstanceData(
            bboxes=HorizontalBoxes(torch.tensor([CORNERS])), labels=torch.tensor([1])
        )
        data.ignored_instances = InstanceData(
            bboxes=torch.tensor([[50.0, 50, 60, 60]]), labels=torch.tensor([0])
        )
    if found:
        data.pred_instances = InstanceData(
            bboxes=torch.tensor([CORNERS, [1.0, 1, 9, 9]]).half(),
            labels=torch.tensor([1, 0]),
            scores=torch.tensor([0.75, 0.25]).half(),
        )
    return data


@pytest.fixture
def painter():
    painter = VISUALIZERS.build(dict(type='DetectionPainter', name='a painter'))
    painter.dataset_meta = dict(classes=('cat', 'dog'))
    return painter


IMAGE = np.zeros((SIDE, SIDE, 3), np.uint8)


def test_paints_what_draw_detections_draws(painter, tmp_path):
    painter.add_datasample('x', IMAGE, sample(), out_file=str(tmp_path / 'x.png'))
    expected = draw_detections(IMAGE, sample(), ('cat', 'dog'))
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / 'x.png'))[..., ::-1], expected)
    # MMEngine's canvas is matplotlib's, which before 3.11 changes pixels.
    canvas = painter.get_image()
    painter.set_image(expected)
    np.testing.assert_array_equal(canvas, painter.get_image())


def test_an_image_alone_stays_as_it_is(painter):
    painter.add_datasample('x', IMAGE + 7)
    np.testing.assert_array_equal(painter.get_image(), IMAGE + 7)


def test_boxes_and_scores_are_taken_from_any_device(painter, on_gpu):
    painter.add_datasample('x', IMAGE, sample())
    expected = painter.get_image()
    data = sample()
    for instances in (data.gt_instances, data.ignored_instances, data.pred_instances):
        for key, value in instances.items():
            instances.set_field(on_gpu(value), key, dtype=type(value))
    painter.add_datasample('x', IMAGE, data)
    np.testing.assert_array_equal(painter.get_image(), expected)
    found, gt = data.pred_instances, data.gt_instances
    match = match_detections(
        found.bboxes, found.scores, found.labels, gt.bboxes, gt.labels, 0.5,
        data.ignored_instances.bboxes, data.ignored_instances.labels,
    )  # fmt: skip
    assert match.verdicts == ['correct', 'nothing there']


class _FindsOneBox(BaseModel):
    """A detector that always finds the same object, of the last class."""

    def __init__(self, num_classes):
        super().__init__(data_preprocessor=dict(type='DetDataPreprocessor'))
        self.label = num_classes - 1

    def forward(self, inputs, data_samples=None, mode='tensor'):
        for data in data_samples:
            data.pred_instances = InstanceData(
                bboxes=torch.tensor([CORNERS]),
                labels=torch.tensor([self.label]),
                scores=torch.tensor([0.9]),
            )
        return data_samples


def validate_and_test(folder, names, classes, visualizer):
    """Let MMDetection's hook draw images with an object of the last class each."""
    x1, y1, x2, y2 = CORNERS
    box = dict(bbox=[x1, y1, x2 - x1, y2 - y1], area=(x2 - x1) * (y2 - y1), iscrowd=0)
    numbers = range(1, len(names) + 1)
    coco = dict(
        images=[dict(id=i, file_name=n, width=SIDE, height=SIDE) for i, n in zip(numbers, names)],
        annotations=[dict(box, id=i, image_id=i, category_id=len(classes)) for i in numbers],
        categories=[dict(id=i + 1, name=name) for i, name in enumerate(classes)],
    )
    (folder / 'coco.json').write_text(json.dumps(coco))
    loader = dict(
        batch_size=1,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=dict(
            type='CocoDataset',
            data_root=str(folder),
            ann_file='coco.json',
            data_prefix=dict(img=''),
            metainfo=dict(classes=classes),
            test_mode=True,
            pipeline=[
                dict(type='LoadImageFromFile'),
                # Half the size: the picture is painted on the original all the same.
                dict(type='Resize', scale=(SIDE // 2, SIDE // 2)),
                dict(type='LoadAnnotations', with_bbox=True),
                dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape')),
            ],
        ),
    )
    evaluator = dict(type='DumpDetResults', out_file_path=str(folder / 'found.pkl'))
    runner = Runner(
        _FindsOneBox(len(classes)),
        str(folder / 'work'),
        val_dataloader=loader,
        val_cfg=dict(),
        val_evaluator=evaluator,
        test_dataloader=loader,
        test_cfg=dict(),
        test_evaluator=evaluator,
        default_scope='mmdet',
        default_hooks=dict(
            visualization=dict(
                type='DetVisualizationHook', draw=True, interval=1, test_out_dir='painted'
            )
        ),
        visualizer=dict(
            type=visualizer, name=str(folder), vis_backends=[dict(type='LocalVisBackend')]
        ),
        experiment_name=folder.name,
        cfg=Config(),
    )
    runner.val()
    runner.test()


def test_the_hook_of_mmdetection_uses_it_in_validation_and_test(tmp_path):
    cv2.imwrite(str(tmp_path / 'a.png'), IMAGE)
    validate_and_test(tmp_path, ['a.png'], ('cat',), 'DetectionPainter')
    data = DetDataSample(
        gt_instances=instances([CORNERS], [0]),
        pred_instances=instances([CORNERS], [0], scores=torch.tensor([0.9])),
    )
    expected = draw_detections(IMAGE, data, ('cat',))
    (validated,) = (tmp_path / 'work').glob('*/vis_data/vis_image/val_img_0.png')
    (tested,) = (tmp_path / 'work').glob('*/painted/a.png')
    for path in (validated, tested):
        np.testing.assert_array_equal(cv2.imread(str(path))[..., ::-1], expected)


@pytest.mark.parametrize('visualizer', ['DetectionPainter', 'DetLocalVisualizer'])
def test_many_classes_and_images_of_one_name_in_any_visualizer(visualizer, tmp_path):
    names = ['a.png', 'one/a.png', 'two/a.png']
    for level, name in zip((10, 110, 210), names):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / name), IMAGE + np.uint8(level))
    # CocoDataset brings 80 colours
    classes = tuple(f'type {number}' for number in range(150))
    validate_and_test(tmp_path, names, classes, visualizer)
    (painted,) = (tmp_path / 'work').glob('*/painted')
    files = {path.relative_to(painted).as_posix(): path for path in painted.rglob('*.png')}
    assert set(files) == set(names)
    for level, name in zip((10, 110, 210), names):
        assert (cv2.imread(str(files[name]))[0, 0] == level).all()


SOUND = [(OBJECT, 0, 0.9), (OTHER, 1, 0.8)]


@pytest.mark.parametrize(
    'box, score',
    [(OBJECT, np.nan), (OBJECT, np.inf), (OBJECT * np.nan, 0.9), (OBJECT * np.inf, 0.9)],
)
def test_what_is_not_finite_is_left_out_and_counted(box, score, monkeypatch):
    legends = []
    monkeypatch.setattr(
        detection_painter, '_add_legend', lambda picture, legend: (
            legends.append(legend[''].split(', ')[1:]) or picture
        )
    )  # fmt: skip
    sound = draw(None, SOUND)
    np.testing.assert_array_equal(draw(None, [(box, 0, score), *SOUND]), sound)
    assert legends == [[], ['1 not finite']]


def test_any_name_and_label_is_drawn():
    names = ['two\nlines', 'x' * 200, '\u505c\u6b62 \U0001f642', '']
    for label in range(6):
        picture = draw(None, [(OBJECT, label, 0.9)], names)
        assert kinds(picture) == {'detection'}


def test_any_kind_of_image_is_painted(painter):
    noise = np.random.RandomState(0).randint(0, 256, (SIDE, SIDE), np.uint8)
    painter.add_datasample('x', np.stack([noise] * 3, -1), sample())
    expected = painter.get_image()
    assert kinds(expected, 640) >= {'correct', 'ignored'}
    for image in (noise, noise[..., None], noise.astype(np.float32), noise.astype(np.uint16) * 257,
                  np.stack([noise] * 3 + [noise // 2], -1)):  # fmt: skip
        painter.add_datasample('x', image, sample())
        np.testing.assert_array_equal(painter.get_image(), expected)
