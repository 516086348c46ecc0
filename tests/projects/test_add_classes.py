"""The protocol on a tiny data set: teacher, students, table."""

import json

import pytest
from protocol import format_table, run_protocol

from mmdet_contrast import config_path
from mmdet_contrast.apis import Comparison, RunResult, runs
from mmdet_contrast.utils.config import LaunchError

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
def prefix(tiny_shapes, tmp_path):
    """What the paths of a teacher's config and of a student's begin with."""
    prefix = tmp_path / 'tiny'
    base = config_path('yolov8/yolov8_n_shapes.py')
    teacher = STUDENT.format(
        base=base, root=tiny_shapes, metric='', model='model = dict(bbox_head=dict(num_classes=2))'
    ).replace(
        'metainfo = dict(classes=(', 'metainfo = dict(classes=old_classes)\nunused = dict(x=('
    )
    (tmp_path / 'tiny_teacher.py').write_text(teacher)
    (tmp_path / 'tiny_finetune.py').write_text(
        STUDENT.format(base=base, root=tiny_shapes, metric=METRIC, model=WRAPPED)
    )
    return prefix


@pytest.mark.slow
def test_trains_tests_and_does_not_do_it_twice(prefix, tmp_path, monkeypatch):
    out = tmp_path / 'out'
    teacher, students = run_protocol(prefix, out, seeds=(3,))
    assert list(teacher.runs) == ['teacher'] and list(students.runs) == ['finetune']
    assert teacher.seeds == students.seeds == [3]
    assert {'base_mAP', 'novel_mAP', 'harmonic_mAP', 'bbox_mAP'} <= set(students.metrics)
    assert 'Started from the teacher' in (out / 'finetune/seed3/train.log').read_text()
    # the test's annotations, not those of the validation
    cfg = runs.Config.fromfile(str(out / 'finetune/seed3_test.py'))
    assert cfg.test_evaluator.ann_file.endswith('instances_test.json')
    assert (out / 'compare.png').is_file()
    monkeypatch.setattr(runs.subprocess, 'call', lambda *a, **k: pytest.fail('ran again'))
    assert format_table(*run_protocol(prefix, out, seeds=(3,))) == format_table(teacher, students)


def test_a_failing_run_is_an_error_with_its_log(prefix, tmp_path, monkeypatch):
    def fail(command, stdout, **kwargs):
        stdout.write('a reason')
        return 1

    monkeypatch.setattr(runs.subprocess, 'call', fail)
    with pytest.raises(RuntimeError, match=r'train.py failed for .*seed0 \(see .*train.log\)'):
        run_protocol(prefix, tmp_path / 'out', seeds=(0, 1))
    (log,) = (tmp_path / 'out').rglob('train.log')
    assert log.read_text() == 'a reason'


def test_students_get_the_teacher_of_the_first_seed(prefix, tmp_path):
    out = tmp_path / 'out'
    for name, seeds in (('teacher', (4,)), ('finetune', (4, 5))):
        for seed in seeds:
            run = out / name / f'seed{seed}'
            run.mkdir(parents=True)
            result = RunResult(dict(bbox_mAP=0.1 * seed), None)
            (run / 'test.json').write_text(json.dumps(result._asdict()))
    (out / 'teacher/seed4/last_checkpoint').write_text('/moved/epoch_1.pth')
    asked = []

    def compare(configs, work_dir, seeds, jobs, split, variants, cfg_options):
        asked.append((jobs, split, variants, cfg_options))
        return Comparison({}, list(seeds), split)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(run_protocol.__globals__, 'compare', compare)
        run_protocol(prefix, out, (4, 5), jobs=3, cfg_options={'train_cfg.max_epochs': 2})
    checkpoint = {'model.teacher_checkpoint': str(out / 'teacher/seed4/epoch_1.pth')}
    students = {'finetune': (tmp_path / 'tiny_finetune.py', checkpoint)}
    assert asked == [(3, 'test', students, {'train_cfg.max_epochs': 2})]
    table = format_table(*run_protocol(prefix, out, (4, 5))).splitlines()
    assert table[2:] == [
        '| teacher | 40.0 | - | - | 40.0 | 1 |',
        '| finetune | - | - | - | 45.0 ± 7.1 | 2 |',
    ]


def test_a_missing_config_is_seen_before_anything_runs(prefix, tmp_path):
    with pytest.raises(LaunchError, match='tiny_best.py'):
        run_protocol(prefix, tmp_path / 'out', variants=['finetune', 'best'])
    assert not (tmp_path / 'out').exists()
