import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet_contrast.models.losses import complete_iou
from mmdet_contrast.models.task_modules import BatchTaskAlignedAssigner

STRIDES = (8, 16, 32)


def make_points(height=96, width=128):
    rows = []
    for stride in STRIDES:
        for y in range(height // stride):
            for x in range(width // stride):
                rows.append(((x + 0.5) * stride, (y + 0.5) * stride))
    return torch.tensor(rows)


def make_batch(counts, seed=0, classes=4, height=96, width=128):
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape):
        return torch.rand(*shape, generator=generator)

    points = make_points(height, width)
    batch, number = len(counts), len(points)
    scores = rand(batch, classes, number)
    # predictions around their point
    bboxes = torch.cat(
        (points - 4 - 40 * rand(batch, number, 2), points + 4 + 40 * rand(batch, number, 2)), -1
    )
    total = sum(counts)
    corner = rand(total, 2) * torch.tensor([width - 10.0, height - 10.0])
    size = 3 + rand(total, 2) ** 2 * 90
    images = torch.arange(batch).repeat_interleave(torch.tensor(counts, dtype=torch.long))
    labels = torch.randint(classes, (total,), generator=generator)
    return scores, bboxes, points, torch.cat((corner, corner + size), 1), labels, images


def loop(scores, bboxes, points, gt_bboxes, gt_labels, gt_images, topk, alpha, beta):
    """Assign image by image, object by object: {(image, point): (object, target)}."""
    result = {}
    for image in range(len(scores)):
        objects = [g for g in range(len(gt_bboxes)) if gt_images[g] == image]
        metric, iou, wanted = {}, {}, {}
        for g in objects:
            x1, y1, x2, y2 = gt_bboxes[g].tolist()
            for p, (x, y) in enumerate(points.tolist()):
                if min(x - x1, y - y1, x2 - x, y2 - y) > 1e-9:
                    value = complete_iou(gt_bboxes[g], bboxes[image, p]).clamp(min=0).item()
                    iou[g, p] = value
                    metric[g, p] = scores[image, gt_labels[g], p].item() ** alpha * value**beta
            order = sorted((p for h, p in metric if h == g), key=lambda p: -metric[g, p])
            for p in order[:topk]:
                if metric[g, p] > 0:
                    wanted.setdefault(p, []).append(g)
        owner = {}
        for p, candidates in wanted.items():
            if len(candidates) > 1:
                candidates = [max((g for g in objects if (g, p) in iou), key=lambda g: iou[g, p])]
            owner[p] = candidates[0]
        for p, g in owner.items():
            mine = [q for q in owner if owner[q] == g]
            best = max(metric[g, q] for q in mine)
            overlap = max(iou[g, q] for q in mine)
            result[image, p] = (g, metric[g, p] * overlap / (best + 1e-9))
    return result


def check(batch, topk=10, alpha=0.5, beta=6.0):
    number = len(batch[2])
    assigned = BatchTaskAlignedAssigner(topk, alpha, beta).assign(*batch)
    expected = loop(*batch, topk, alpha, beta)
    keys = [(p // number, p % number) for p in assigned.points.tolist()]
    assert keys == sorted(expected)
    assert assigned.objects.tolist() == [expected[key][0] for key in keys]
    targets = torch.tensor([expected[key][1] for key in keys])
    torch.testing.assert_close(assigned.scores, targets.float(), rtol=1e-4, atol=1e-6)
    return assigned


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=4),
    st.integers(0, 1000),
    st.sampled_from([1, 3, 10]),
)
def test_equals_a_loop(counts, seed, topk):
    check(make_batch(counts, seed), topk)


@pytest.mark.parametrize(('alpha', 'beta'), [(1.0, 6.0), (0.5, 2.0)])
def test_exponents(alpha, beta):
    check(make_batch([4, 3], seed=3), alpha=alpha, beta=beta)


def test_points_wanted_twice_go_to_the_highest_overlap():
    scores, bboxes, points, gt, labels, images = make_batch([8], seed=1)
    gt[1:4] = gt[0] + torch.tensor([[0.5], [1.0], [-0.5]])
    assigned = check((scores, bboxes, points, gt, labels, images))
    assert len(assigned.points.unique()) == len(assigned.points)


def test_equal_boxes_go_to_the_first():
    scores, bboxes, points, gt, labels, images = make_batch([1], seed=2)
    both = (torch.cat((gt, gt)), labels.repeat(2), images.repeat(2))
    assigned = BatchTaskAlignedAssigner().assign(scores, bboxes, points, *both)
    assert len(assigned.objects)
    assert (assigned.objects == 0).all()


def test_no_object_in_the_batch():
    assigned = BatchTaskAlignedAssigner().assign(*make_batch([0, 0]))
    assert [len(part) for part in assigned] == [0, 0, 0]


def test_an_object_between_the_points_gets_none():
    scores, bboxes, points, _, _, _ = make_batch([0])
    box, zero = torch.tensor([[9.0, 9.0, 11.0, 11.0]]), torch.zeros(1, dtype=torch.long)
    assigned = BatchTaskAlignedAssigner().assign(scores, bboxes, points, box, zero, zero)
    assert len(assigned.points) == 0


def test_boxes_without_an_area_get_none():
    scores, bboxes, points, _, _, _ = make_batch([0])
    boxes = torch.tensor([[12.0, 12.0, 12.0, 40.0], [40.0, 40.0, 12.0, 12.0]])
    zero = torch.zeros(2, dtype=torch.long)
    assigned = BatchTaskAlignedAssigner().assign(scores, bboxes, points, boxes, zero, zero)
    assert len(assigned.points) == 0


def test_many_objects():
    batch = make_batch([350, 0, 1], seed=5, height=192, width=192)
    assigned = BatchTaskAlignedAssigner().assign(*batch)
    assert len(assigned.points.unique()) == len(assigned.points)
    assert ((assigned.scores > 0) & (assigned.scores <= 1)).all()
    # every point's object is in the point's image
    image = assigned.points // len(batch[2])
    assert (batch[5][assigned.objects] == image).all()


def test_order_of_the_objects_changes_nothing():
    scores, bboxes, points, gt, labels, images = make_batch([5, 4], seed=7)
    order = torch.randperm(len(gt), generator=torch.Generator().manual_seed(0))
    first = BatchTaskAlignedAssigner().assign(scores, bboxes, points, gt, labels, images)
    second = BatchTaskAlignedAssigner().assign(
        scores, bboxes, points, gt[order], labels[order], images[order]
    )
    assert torch.equal(first.points, second.points)
    assert torch.equal(first.objects, order[second.objects])
    torch.testing.assert_close(first.scores, second.scores)


def test_half_precision_is_computed_in_float32():
    scores, bboxes, *rest = make_batch([4], seed=8)
    # scores that a metric in half precision would lose
    scores = (scores * 1e-3).half()
    half = BatchTaskAlignedAssigner().assign(scores, bboxes, *rest)
    full = BatchTaskAlignedAssigner().assign(scores.float(), bboxes, *rest)
    assert torch.equal(half.points, full.points)
    assert half.scores.dtype == torch.float32
    assert torch.equal(half.scores, full.scores)
