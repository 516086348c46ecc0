"""One picture of ground truth and detections: which box is drawn how."""

import numpy as np
import pytest

from mmdet_contrast.visualization import draw_detections
from mmdet_contrast.visualization.detection_picture import STYLES

SIZE = 200
BOX = np.array([20.0, 60, 100, 140])
FAR = np.array([120.0, 120, 180, 180])


def draw(gt, found, classes=('cat', 'dog'), size=SIZE, **options):
    """``gt`` is a list of (box, label), ``found`` one of (box, label, score); None for none."""
    gt_bboxes, gt_labels = zip(*gt) if gt else ((), ())
    bboxes, labels, scores = zip(*found) if found else ((), (), ())
    return draw_detections(
        np.zeros((size, size, 3), np.uint8),
        None if gt is None else np.array(gt_bboxes),
        gt_labels,
        None if found is None else np.array(bboxes),
        labels,
        scores,
        classes,
        **{'min_panel': size, **options},
    )


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
        ([(BOX, 0)], [(BOX + 3, 0, 0.9)], PURPLE | {'correct'}),
        ([(BOX, 0)], [(BOX + 3, 1, 0.9)], PURPLE | {'wrong class'}),
        ([(BOX, 0)], [(FAR, 0, 0.9)], PURPLE | {'nothing there'}),
        ([(BOX, 0)], [(BOX, 0, 0.9), (BOX + 9, 0, 0.8)], PURPLE | {'correct', 'found twice'}),
        ([(BOX, 0)], [], PURPLE),
        ([(BOX, 0)], [(BOX, 0, 0.2)], PURPLE),
        ([], [(BOX, 0, 0.9)], {'nothing there'}),
        (None, [(BOX, 0, 0.9)], {'detection'}),
        ([(BOX, 0)], None, PURPLE),
        ([], [], set()),
        (None, None, set()),
    ],
)
def test_each_kind_has_its_colour(gt, found, expected):
    assert kinds(draw(gt, found)) == expected


def test_a_covered_object_shows_beside_its_detection():
    row = draw([(BOX, 0)], [(BOX, 0, 0.9)])[100, 10:30]
    purple, green = (np.array(STYLES[kind].colour) for kind in ('ground truth', 'correct'))
    (green_at,) = np.flatnonzero((row == green).all(-1)).reshape(1, -1).tolist()
    purple_at = np.flatnonzero((row == purple).all(-1))
    assert purple_at.min() < min(green_at) and purple_at.max() > max(green_at)


def test_found_is_solid_and_missed_is_dashed():
    shares = []
    # Without labels' help: in the right column, clear of the label below.
    for found in ([(BOX, 0, 0.9)], []):
        column = draw([(BOX, 0)], found)[66:134, 98:104]
        shares.append((column == np.array(STYLES['missed'].colour)).all(-1).any(1).mean())
    assert shares[0] == 1 and 0.3 < shares[1] < 0.8


def test_ignored_regions_and_what_lies_in_them_are_grey():
    picture = draw(
        [], [(BOX, 0, 0.9)], ignored_bboxes=np.array([[10.0, 50, 190, 190]]), ignored_labels=[0]
    )
    assert kinds(picture) == {'ignored'}


def test_the_true_class_is_written_on_a_wrong_one(monkeypatch):
    import mmdet_contrast.visualization.detection_picture as module

    texts = []
    for name in ('draw_label', 'draw_text'):
        plain = getattr(module, name)

        def remember(image, *args, plain=plain, **kwargs):
            texts.append(next(arg for arg in args if isinstance(arg, str)))
            return plain(image, *args, **kwargs)

        monkeypatch.setattr(module, name, remember)
    draw([(BOX, 0), (FAR, 1)], [(BOX, 1, 0.75)])
    assert texts[:3] == ['dog 0.75, is cat', 'missed cat', 'missed dog']
    assert texts[3:] == [
        'ground truth 2',
        'correct 0',
        'wrong class 1',
        'nothing there 0',
        'missed 2',
        'score ≥ 0.3, IoU ≥ 0.5',
    ]


def test_small_images_are_enlarged_and_lines_grow_with_large_ones():
    small = draw([(BOX / 8, 0)], [], size=25, min_panel=640)
    assert small.shape[1] == 26 * 25
    widths = []
    for scale in (1, 12):
        picture = draw([(BOX * scale, 0)], None, size=SIZE * scale)
        row = picture[100 * scale, : 60 * scale]
        widths.append((row == np.array(STYLES['ground truth'].colour)).all(-1).sum())
    assert 2 <= widths[0] <= 8 and 2 * widths[0] <= widths[1]
    wide = draw([(BOX, 0)], None, line_width=9)[100, :60]
    assert (wide == np.array(STYLES['ground truth'].colour)).all(-1).sum() > widths[0]


def test_labels_in_a_crowd_do_not_cover_each_other():
    from mmdet_contrast.visualization.canvas import draw_label

    taken = []
    image = np.zeros((400, 400, 3), np.uint8)
    for _ in range(6):
        draw_label(image, (150, 150, 250, 250), 'a name', (255, 255, 255), 12, taken)
    for number, (x1, y1, x2, y2) in enumerate(taken):
        assert 0 <= x1 < x2 <= 400 and 0 <= y1 < y2 <= 400
        for other in taken[:number]:
            assert x2 <= other[0] or other[2] <= x1 or y2 <= other[1] or other[3] <= y1


def test_the_image_is_left_as_it_was_and_narrow_ones_get_a_legend():
    image = np.zeros((300, 20, 3), np.uint8)
    box = np.array([[2.0, 2, 18, 290]])
    picture = draw_detections(image, box, [0], box, [0], [0.9], None, min_panel=20)
    assert image.max() == 0 and picture.shape[1] > 20 and picture.shape[0] > 300


def test_a_label_without_a_name_is_refused():
    with pytest.raises(ValueError, match=r'label 5, but there are 2 class names \(cat, dog\)'):
        draw([(BOX, 5)], [])
