"""What was kept and learnt: numbers, table, files."""

import json
from math import isnan, nan

import pytest

from mmdet_contrast.apis import AdditionResult

BEFORE = dict(bbox_mAP=0.45, base_mAP=0.45, novel_mAP=nan, car_precision=0.5, person_precision=0.4)
AFTER = dict(
    base_mAP=0.36,
    novel_mAP=0.6,
    harmonic_mAP=0.45,
    car_precision=0.42,
    person_precision=0.3,
    bus_precision=0.6,
    van_precision=nan,
)


def result(before=BEFORE, after=AFTER):
    return AdditionResult('d.pth', 'd.py', ('car', 'person'), ('bus', 'van'), before, after)


def test_numbers_are_those_of_the_metric():
    found = result()
    assert found.before == pytest.approx(dict(car=50, person=40))
    assert found.after == pytest.approx(dict(car=42, person=30, bus=60, van=nan), nan_ok=True)
    assert (found.old_before, found.old, found.new) == pytest.approx((45, 36, 60))
    assert found.harmonic == pytest.approx(45) and found.kept == pytest.approx(80)


def test_table(tmp_path):
    rows = [
        [c.strip() for c in line.split('|')[1:-1]] for line in result().to_markdown().split('\n')
    ]
    assert rows[2:9] == [
        ['car', '50.0', '42.0'],
        ['person', '40.0', '30.0'],
        ['bus', 'new', '60.0'],
        ['van', 'new', '-'],
        ['**old classes**', '45.0', '36.0'],
        ['**new classes**', '', '60.0'],
        ['harmonic mean', '', '45.0'],
    ]
    assert result().to_markdown().endswith('Kept: 80.0 % of the AP of the old classes.')
    result().save(tmp_path)
    assert (tmp_path / 'result.md').read_text() == result().to_markdown() + '\n'
    found = json.loads((tmp_path / 'result.json').read_text())
    assert found['after']['van'] is None and found['kept'] == pytest.approx(80)
    assert (tmp_path / 'result.png').stat().st_size > 5000


@pytest.mark.parametrize(
    ('before', 'after', 'text'),
    [
        (dict(base_mAP=nan), dict(base_mAP=nan, novel_mAP=0.5), 'cannot be measured'),
        (dict(base_mAP=0.0), dict(base_mAP=0.0, novel_mAP=0.5), 'found none of the old classes'),
        ({}, {}, 'Nothing was measured'),
    ],
)
def test_what_cannot_be_measured_is_said(before, after, text, tmp_path):
    found = result(before, after)
    assert isnan(found.kept) and text in found.to_markdown()
    found.save(tmp_path)
    assert json.loads((tmp_path / 'result.json').read_text())['kept'] is None
    assert (tmp_path / 'result.png').exists() == bool(after)
