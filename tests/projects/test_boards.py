import json

import cv2
import make_boards
import numpy as np
import pytest
from make_boards import CLASSES, SIZE, SPLITS, Board, draw_picture


def test_files(tmp_path, monkeypatch):
    small = {name: (labels, 6, seed) for name, (labels, _, seed) in SPLITS.items()}
    monkeypatch.setattr(make_boards, 'SPLITS', small)
    make_boards.make_boards(tmp_path)
    for split, (labels, count, _) in small.items():
        content = json.loads((tmp_path / 'annotations' / f'{split}.json').read_text())
        assert [c['name'] for c in content['categories']] == list(CLASSES)
        assert len(content['images']) == count
        for index, image in enumerate(content['images']):
            picture = cv2.imread(str(tmp_path / 'images' / image['file_name']))
            assert picture.shape == (image['height'], image['width'], 3) == (SIZE, SIZE, 3)
            found = [a for a in content['annotations'] if a['image_id'] == image['id']]
            # each picture has defects of one class
            assert {a['category_id'] for a in found} == {labels[index % len(labels)] + 1}
            for x, y, width, height in (a['bbox'] for a in found):
                assert 0 < x < x + width <= SIZE and 0 < y < y + height <= SIZE


def test_old_and_new_share_no_class():
    assert not set(SPLITS['old'][0]) & set(SPLITS['new'][0])


@pytest.mark.parametrize('label', range(len(CLASSES)))
def test_a_defect_changes_what_is_in_its_box(label):
    rng = np.random.default_rng(label)
    seen = 0
    for _ in range(40):
        board = Board(rng)
        proposal = board.propose(rng, label)
        if proposal is None:
            continue
        (x1, y1, x2, y2), draw = proposal
        before = board.picture.copy()
        draw()
        if CLASSES[label] == 'missing_hole':
            (pad,) = board.undrilled
            x, y, radius = board.pads[pad]
            assert (x1, y1, x2, y2) == (
                x - radius - 1,
                y - radius - 1,
                x + radius + 1,
                y + radius + 1,
            )
            seen += 1
            continue
        changed = (board.picture != before).any(axis=2)
        # the round ends of a bridge may reach beyond a thin trace
        assert changed[y1 : y2 + 1, x1 : x2 + 1].sum() >= 0.9 * changed.sum() > 0
        seen += 1
    assert seen >= 5


def test_a_seed_gives_a_picture():
    (picture, boxes), (again, same) = (draw_picture(np.random.default_rng(1), 2) for _ in range(2))
    assert np.array_equal(picture, again) and boxes == same and 2 <= len(boxes) <= 5
