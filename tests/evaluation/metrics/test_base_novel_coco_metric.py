import json
import logging
import math

import pytest
import torch
from mmdet.evaluation.metrics import CocoMetric
from mmdet.registry import METRICS
from mmengine.logging import MMLogger

from mmdet_contrast.evaluation.metrics import BaseNovelCocoMetric

CLASSES = ('cat', 'dog', 'bird')
IMAGES = 2
# image, class, box
OBJECTS = (
    (0, 'cat', (10, 10, 60, 60)),
    (0, 'dog', (100, 20, 180, 90)),
    (1, 'cat', (20, 30, 90, 100)),
    (1, 'dog', (120, 120, 190, 190)),
    (1, 'bird', (10, 120, 70, 190)),
)


@pytest.fixture
def ann_file(tmp_path):
    return write_annotations(tmp_path, OBJECTS)


def write_annotations(tmp_path, objects, ids=(1, 2, 3)):
    annotations = [
        dict(
            id=i + 1,
            image_id=image,
            category_id=ids[CLASSES.index(name)],
            bbox=[x1, y1, x2 - x1, y2 - y1],
            area=(x2 - x1) * (y2 - y1),
            iscrowd=0,
        )
        for i, (image, name, (x1, y1, x2, y2)) in enumerate(objects)
    ]
    images = [dict(id=i, width=200, height=200, file_name=f'{i}.jpg') for i in range(IMAGES)]
    categories = [dict(id=i, name=name) for i, name in zip(ids, CLASSES)]
    path = tmp_path / 'annotations.json'
    path.write_text(json.dumps(dict(images=images, annotations=annotations, categories=categories)))
    return str(path)


def evaluate(metric, detections, classes=CLASSES):
    """Run the metric over detections ``(image, class, box, score)``."""
    metric.dataset_meta = dict(classes=classes)
    for image in range(IMAGES):
        own = [x for x in detections if x[0] == image]
        instances = dict(
            bboxes=torch.tensor([x[2] for x in own], dtype=torch.float).reshape(-1, 4),
            labels=torch.tensor([classes.index(x[1]) for x in own], dtype=torch.long),
            scores=torch.tensor([x[3] for x in own], dtype=torch.float),
        )
        metric.process({}, [dict(pred_instances=instances, img_id=image, ori_shape=(200, 200))])
    return metric.evaluate(size=IMAGES)


# cats are found, one of two dogs, and the bird at IoU 0.75
FOUND = (
    (0, 'cat', (10, 10, 60, 60), 0.9),
    (1, 'cat', (20, 30, 90, 100), 0.8),
    (0, 'dog', (100, 20, 180, 90), 0.7),
    (1, 'bird', (10, 120, 70, 172.5), 0.9),
)
# precision is 1 at 51 of the 101 recalls up to 1 / 2
DOG = 51 / 101
# right at the IoUs .5 to .75
BIRD = 0.6


def test_known_values(ann_file):
    metric = BaseNovelCocoMetric(base_classes=['cat', 'dog'], ann_file=ann_file)
    result = evaluate(metric, FOUND)
    base = (1 + DOG) / 2
    expected = {
        'cat_precision': 1,
        'dog_precision': DOG,
        'bird_precision': BIRD,
        'base_mAP': base,
        'novel_mAP': BIRD,
        'harmonic_mAP': 2 * base * BIRD / (base + BIRD),
        'base_mAP_50': base,
        'novel_mAP_50': 1,
        'harmonic_mAP_50': 2 * base / (base + 1),
    }
    for name, value in expected.items():
        assert result[f'coco/{name}'] == pytest.approx(value, abs=1e-4), name


def test_a_detector_of_base_classes_only(ann_file):
    known = ('cat', 'dog')
    metric = BaseNovelCocoMetric(base_classes=known, novel_classes=[], ann_file=ann_file)
    result = evaluate(metric, FOUND[:3], classes=known)
    assert result['coco/base_mAP'] == pytest.approx((1 + DOG) / 2, abs=1e-4)
    assert math.isnan(result['coco/novel_mAP']) and math.isnan(result['coco/harmonic_mAP'])


def test_keeps_what_coco_metric_returns(ann_file):
    stock = evaluate(CocoMetric(ann_file=ann_file, classwise=True), FOUND)
    ours = evaluate(BaseNovelCocoMetric(base_classes=['bird'], ann_file=ann_file), FOUND)
    assert set(stock) < set(ours)
    for name, value in stock.items():
        assert ours[name] == pytest.approx(value, abs=6e-4, nan_ok=True), name


def test_categories_out_of_order(tmp_path):
    # pycocotools sorts the ids that it evaluates
    ann_file = write_annotations(tmp_path, OBJECTS, ids=(7, 3, 5))
    result = evaluate(BaseNovelCocoMetric(base_classes=['cat', 'dog'], ann_file=ann_file), FOUND)
    values = [result[f'coco/{name}_precision'] for name in CLASSES]
    assert values == pytest.approx([1, DOG, BIRD], abs=1e-4)


@pytest.fixture
def messages():
    """Collect what the current logger is given."""
    records = []

    class Handler(logging.Handler):
        def emit(self, record):
            records.append(record.getMessage())

    handler, logger = Handler(), MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    yield records
    logger.removeHandler(handler)
    logger.setLevel(level)


def test_table(ann_file, messages):
    evaluate(BaseNovelCocoMetric(['dog'], ['cat'], ann_file=ann_file), FOUND)
    (table,) = (x for x in messages if 'bbox_AP_50' in x)
    rows = [[cell.strip() for cell in x.strip('|').split('|')] for x in table.splitlines()]
    assert ['dog', 'base', '2', '0.505', '0.505'] in rows
    assert ['cat', 'novel', '2', '1.000', '1.000'] in rows
    assert ['bird', '-', '1', '0.600', '1.000'] in rows
    assert ['base', '', '', '0.505', '0.505'] in rows
    assert ['harmonic', '', '', '0.671', '0.671'] in rows


def test_classes_without_ground_truth_are_left_out(tmp_path, messages):
    ann_file = write_annotations(tmp_path, [x for x in OBJECTS if x[1] != 'dog'])
    result = evaluate(BaseNovelCocoMetric(['cat', 'dog'], ann_file=ann_file), FOUND)
    assert result['coco/base_mAP'] == 1 and math.isnan(result['coco/dog_precision'])
    assert any("left out of the mean AP: ['dog']" in x for x in messages)
    result = evaluate(BaseNovelCocoMetric(['dog'], ann_file=ann_file), FOUND)
    assert math.isnan(result['coco/base_mAP']) and math.isnan(result['coco/harmonic_mAP'])
    assert result['coco/novel_mAP'] == pytest.approx((1 + BIRD) / 2, abs=1e-4)


def test_no_detections(ann_file):
    result = evaluate(BaseNovelCocoMetric(['cat', 'dog'], ann_file=ann_file), ())
    for name in ('base_mAP', 'novel_mAP', 'harmonic_mAP', 'base_mAP_50', 'cat_precision'):
        assert result[f'coco/{name}'] == 0
    assert result['coco/bbox_mAP'] == 0


def test_other_iou_thresholds(ann_file):
    for thresholds, at_50 in (([0.6, 0.8], None), ((0.8, 0.5), 1)):
        metric = BaseNovelCocoMetric(['cat', 'dog'], ann_file=ann_file, iou_thrs=thresholds)
        result = evaluate(metric, FOUND)
        assert result['coco/novel_mAP'] == pytest.approx(0.5)
        assert result.get('coco/novel_mAP_50') == at_50


@pytest.mark.parametrize(
    'base, novel', [([], None), (['cat'], []), (['cat', 'dog'], ['cat']), (['cow'], None)]
)
def test_groups_that_do_not_fit_the_data_set(base, novel):
    metric = METRICS.build(dict(type='BaseNovelCocoMetric', base_classes=base, novel_classes=novel))
    with pytest.raises(ValueError, match=r"of the data set, \('cat', 'dog', 'bird'\)"):
        metric.dataset_meta = dict(classes=CLASSES)
