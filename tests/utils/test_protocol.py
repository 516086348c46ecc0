"""The protocol on a tiny data set: teacher, students, table."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from mmdet_contrast import config_path
from mmdet_contrast.utils import protocol
from mmdet_contrast.utils.protocol import ProtocolResult, format_table, run_protocol

STUDENT = """
_base_ = '{base}'
root = '{root}/'
old_classes = ('striped_disc', 'checkered_square')
metainfo = dict(classes=('striped_disc', 'checkered_square', 'dotted_triangle'))
{model}
train_dataloader = dict(batch_size=4, dataset=dict(data_root=root, metainfo=metainfo))
val_dataloader = dict(dataset=dict(data_root=root, metainfo=metainfo))
test_dataloader = dict(dataset=dict(data_root=root, metainfo=metainfo))
val_evaluator = dict({metric}ann_file=root + 'annotations/instances_val.json')
test_evaluator = dict({metric}ann_file=root + 'annotations/instances_test.json')
train_cfg = dict(max_epochs=1)
visualizer = dict(vis_backends=[dict(type='LocalVisBackend')])
vis_backends = None
"""
WRAPPED = """
model = dict(
    _delete_=True,
    type='DistillationDetector',
    student=_base_.model,
    teacher=dict(_base_.model, bbox_head=dict(_base_.model.bbox_head, num_classes=2)),
    teacher_checkpoint='replaced by the protocol',
    start_from_teacher=True,
)
custom_hooks = [*_base_.custom_hooks, dict(type='DistillationHook')]
"""
METRIC = "type='BaseNovelCocoMetric', base_classes=old_classes, "


@pytest.fixture
def folder(tiny_shapes, tmp_path):
    folder = tmp_path / 'configs'
    folder.mkdir()
    base = config_path('yolov8/yolov8_n_shapes.py')
    teacher = STUDENT.format(
        base=base, root=tiny_shapes, metric='', model='model = dict(bbox_head=dict(num_classes=2))'
    ).replace(
        'metainfo = dict(classes=(', 'metainfo = dict(classes=old_classes)\nunused = dict(x=('
    )
    (folder / 'configs_teacher.py').write_text(teacher)
    (folder / 'configs_finetune.py').write_text(
        STUDENT.format(base=base, root=tiny_shapes, metric=METRIC, model=WRAPPED)
    )
    return folder


def test_trains_tests_and_does_not_do_it_twice(folder, tmp_path, monkeypatch):
    results = run_protocol(folder, tmp_path / 'out', seeds=(3,))
    assert [r.name for r in results] == ['teacher', 'finetune']
    assert results[1].seeds == [3]
    found = results[1].metrics[0]
    assert {'base_mAP', 'novel_mAP', 'harmonic_mAP', 'bbox_mAP'} <= set(found)
    log = (tmp_path / 'out/finetune/seed3/train.log').read_text()
    assert 'Started from the teacher' in log
    monkeypatch.setattr(protocol.subprocess, 'call', lambda *a, **k: pytest.fail('ran again'))
    assert run_protocol(folder, tmp_path / 'out', seeds=(3,)) == results


def test_a_failing_run_is_an_error_with_its_log(folder, tmp_path, monkeypatch):
    def fail(command, stdout, **kwargs):
        stdout.write('a reason')
        return 1

    monkeypatch.setattr(protocol.subprocess, 'call', fail)
    with pytest.raises(RuntimeError, match=r'train.py failed for .*seed0 \(see .*train.log\)'):
        run_protocol(folder, tmp_path / 'out', seeds=(0,))
    (log,) = (tmp_path / 'out').rglob('train.log')
    assert log.read_text() == 'a reason'


def test_runs_that_wait_are_not_started_after_a_failure(tmp_path, monkeypatch):
    left, begun = threading.Event(), []

    class Pool(ThreadPoolExecutor):
        def shutdown(self, *args, **kwargs):
            left.set()
            super().shutdown(*args, **kwargs)

    def run(self, name, seed, teacher=None):
        begun.append((name, seed))
        if name == 'a' and seed == 0:
            raise RuntimeError('train.py failed')
        # the next may have begun before the failure is seen
        assert name == 'teacher' or left.wait(60)
        return {}

    for name in ('teacher', 'a', 'b'):
        (tmp_path / f'{tmp_path.name}_{name}.py').touch()
    monkeypatch.setattr(protocol, 'ThreadPoolExecutor', Pool)
    monkeypatch.setattr(protocol._Runs, 'run', run)
    monkeypatch.setattr(protocol, 'last_checkpoint', lambda work_dir: work_dir)
    with pytest.raises(RuntimeError, match='train.py failed'):
        run_protocol(tmp_path, tmp_path / 'out')
    assert begun[:2] == [('teacher', 0), ('a', 0)] and len(begun) <= 3


def test_a_missing_config_is_named(tmp_path):
    with pytest.raises(ValueError, match=r'has no .*_teacher.py; it has no config'):
        run_protocol(tmp_path, tmp_path / 'out')


def test_table():
    teacher = ProtocolResult('teacher', [0], [dict(bbox_mAP=0.5)])
    student = ProtocolResult(
        'kl', [0, 1], [dict(base_mAP=0.4, novel_mAP=0.1), dict(base_mAP=0.42, novel_mAP=0.1)]
    )
    lines = format_table([teacher, student]).splitlines()
    assert lines[2] == '| teacher | 50.0 | - | - | 50.0 | 1 |'
    assert lines[3] == '| kl | 41.0 ± 1.4 | 10.0 ± 0.0 | - | - | 2 |'


def test_results_are_kept_as_json(folder, tmp_path):
    out = tmp_path / 'out/teacher/seed0'
    out.mkdir(parents=True)
    (out / 'metrics.json').write_text(json.dumps(dict(bbox_mAP=0.25)))
    (out / 'last_checkpoint').write_text(str(out / 'epoch_1.pth'))
    (result,) = run_protocol(folder, tmp_path / 'out', seeds=(0,), variants=[])
    assert result.metrics == [dict(bbox_mAP=0.25)]
