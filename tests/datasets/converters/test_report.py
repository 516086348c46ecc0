import json

import pytest

from mmdet_contrast.datasets.converters import ConversionError, ConversionReport


def _report(**kwargs):
    report = ConversionReport(['cat', 'dog'], 'out.json', **kwargs)
    report.num_images, report.num_boxes = 2, 3
    report.per_class.update(cat=3)
    return report


def test_clean_report_says_so():
    assert 'nothing was changed or left out' in str(_report())


def test_table_names_the_files_and_the_values():
    report = _report()
    for i in range(5):
        report.add('box_outside', f'{4 - i}.xml', f'cat at ({i}, 0, 1, 1)', 'left out')
    report.add('difficult', 'n.xml', 'cat', 'ignored: iscrowd=1')
    text = str(report)
    assert '0.xml, 1.xml, 2.xml … and 2 more' in text
    assert '3.xml: box_outside: cat at (1, 0, 1, 1)' in text
    assert report.kinds == ['box_outside', 'difficult']
    assert (report.num_problems, report.count('box_outside')) == (5, 5)
    assert report.files('box_outside') == [f'{i}.xml' for i in range(5)]


def test_saved_report_holds_every_finding(tmp_path):
    report = _report()
    for i in range(100):
        report.add('box_outside', f'{i}.xml', 'cat', 'left out')
    report.save(tmp_path / 'report.json')
    saved = json.loads((tmp_path / 'report.json').read_text())
    assert len(saved['findings']['box_outside']) == 100
    assert saved['per_class'] == {'cat': 3, 'dog': 0}
    assert len(str(report).splitlines()) < 50


def test_strict_raises_for_problems_and_not_for_notes():
    report = _report(strict=True)
    report.add('difficult', 'a.xml', 'cat', 'kept')
    report.add('image_without_objects', 'a.xml', '', 'kept')
    with pytest.raises(ConversionError, match='a.xml: box outside: cat at 9'):
        report.add('box_outside', 'a.xml', 'cat at 9', 'left out')
