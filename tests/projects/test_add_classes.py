"""The protocol on a tiny data set: configs of the variants, runs, table."""

import json
import runpy
import sys
from types import SimpleNamespace
from unittest import mock

import pytest
from head_toys import CLASSES, retina, save_teacher, yolo
from mmengine.config import Config
from protocol import format_table, run_protocol

from mmdet_contrast import config_path
from mmdet_contrast.apis import Comparison, RunResult, runs
from mmdet_contrast.utils.config import LaunchError

OLD, NEW = CLASSES[:2], CLASSES[2:]
PRETRAINED = dict(type='Pretrained', checkpoint='gone.pth')
ONE_EPOCH = {'train_cfg.max_epochs': 1}


@pytest.fixture(scope='module')
def data(tiny_shapes):
    """Pictures that annotate everything: new, old and those to evaluate on."""
    ann = 'annotations/instances_{}.json'.format
    return dict(
        ann=str(tiny_shapes / ann('test')),
        img_dir=str(tiny_shapes / 'test'),
        classes=NEW,
        val=str(tiny_shapes / ann('val')),
        val_img_dir=str(tiny_shapes / 'val'),
        old_ann=str(tiny_shapes / ann('train')),
        old_img_dir=str(tiny_shapes / 'train'),
    )


def write_teacher(folder, model, root):
    """Write the config of a detector of the old classes."""
    base = 'yolov8/yolov8_n_shapes.py' if model.type == 'YOLOv8Detector' else 'retina_shapes.py'
    cfg = Config.fromfile(config_path(base))
    cfg.model = model
    for split in ('train', 'val', 'test'):
        dataset = cfg[f'{split}_dataloader'].dataset
        dataset.update(data_root=f'{root}/', metainfo=dict(classes=OLD))
    cfg.val_evaluator.ann_file = f'{root}/annotations/instances_val.json'
    cfg.visualizer.vis_backends = [dict(type='LocalVisBackend')]
    (folder / 'old.py').write_text(cfg.pretty_text)
    return str(folder / 'old.py')


@pytest.fixture
def asked(monkeypatch):
    """What is asked of ``compare``, which runs nothing."""
    calls = []

    def compare(configs, work_dir, seeds, jobs, **kwargs):
        calls.append(SimpleNamespace(seeds=seeds, jobs=jobs, **kwargs))
        return Comparison({name: [] for name in kwargs['variants']}, list(seeds))

    monkeypatch.setitem(run_protocol.__globals__, 'compare', compare)
    return calls


@pytest.mark.parametrize('toy', [yolo, retina])
def test_configs_of_the_variants(toy, data, tiny_shapes, asked, tmp_path):
    model = toy(2)
    checkpoint = save_teacher(model, tmp_path / 'old.pth', OLD)
    model.backbone.init_cfg = PRETRAINED
    config, out = write_teacher(tmp_path, model, tiny_shapes), tmp_path / 'out'
    replay = dict(replay=data['old_ann'], replay_img_dir=data['old_img_dir'])
    teacher, _ = run_protocol(
        config, work_dir=out, checkpoint=checkpoint, seeds=(4, 5), jobs=3,
        cfg_options={'optim_wrapper.optimizer.lr': 0.5}, **data, **replay,
    )  # fmt: skip
    (call,) = asked
    assert (call.seeds, call.jobs) == ((4, 5), 3)
    assert call.cfg_options == {'optim_wrapper.optimizer.lr': 0.5}
    assert list(call.variants) == ['best', 'finetune', 'cwd_kl', 'joint', 'replay']
    assert all(options == {} for _, options in call.variants.values())
    made = {name: Config.fromfile(file) for name, (file, _) in call.variants.items()}
    # the teacher is not trained, and tested on the old classes
    assert teacher.seeds == [4] and not (out / 'teacher/seed4').exists()
    assert {'base_mAP', *(f'{name}_precision' for name in OLD)} <= set(teacher.metrics)
    assert f'{NEW[0]}_precision' not in teacher.metrics

    def images(name):
        """Return which classes each picture is said to annotate, and those of all boxes."""
        content = json.loads((out / f'configs/{name}/annotations/train.json').read_text())
        assert made[name].train_dataloader.dataset.ann_file.startswith(f'{out}/configs/{name}/')
        ids = [image.get('annotated_category_ids') for image in content['images']]
        return ids, {a['category_id'] for a in content['annotations']}

    best, epochs = made['best'], made['best'].train_cfg.max_epochs
    assert best.model.norm_eval and best.model.annotated_classes == list(NEW)
    assert best.model.distillers[0].loss.type == 'LogitsKLDivergence'
    assert best.val_evaluator.base_classes == list(OLD)
    assert images('best') == ([[2]] * 4, {2})
    finetune = made['finetune'].model
    assert finetune.distillers == [] and finetune.annotated_classes is None
    assert not finetune.norm_eval and finetune.start_from_teacher
    assert images('finetune') == images('cwd_kl') == ([None] * 4, {2})
    sources = [(term.source, term.weight) for term in made['cwd_kl'].model.distillers]
    assert sources == [('backbone', 0.8), ('neck', 0.8), ('bbox_head.cls', 0.01)]
    for name in ('finetune', 'cwd_kl'):
        own, common = made[name].to_dict(), best.to_dict()
        assert own['train_cfg']['max_epochs'] == epochs
        for key in ('optim_wrapper', 'param_scheduler', 'custom_hooks', 'default_hooks'):
            assert own[key] == common[key]

    plain, source = made['joint'], Config.fromfile(config)
    assert plain.model.bbox_head.num_classes == 3 and plain.load_from is None
    # as the teacher began, not as the student does
    assert plain.model.backbone == source.model.backbone
    assert best.model.student.backbone.get('init_cfg') is None
    for key in ('train_cfg', 'optim_wrapper', 'param_scheduler'):
        assert plain[key] == source[key]
    assert plain.val_evaluator.type == 'BaseNovelCocoMetric'
    ids, labels = images('joint')
    assert len(ids) == 16 and labels == {0, 1, 2}
    assert made['replay'].model == best.model
    # old pictures say nothing about new classes
    assert images('replay')[0] == [[2]] * 4 + [[0, 1]] * 12


def test_pictures_that_are_old_and_new_are_joined_once(data, tiny_shapes, asked, tmp_path):
    model = retina(2)
    checkpoint = save_teacher(model, tmp_path / 'old.pth', OLD)
    config, out = write_teacher(tmp_path, model, tiny_shapes), tmp_path / 'out'
    copied = tmp_path / 'copied.json'
    truth = json.loads(open(data['ann']).read())
    copied.write_text(json.dumps(truth))
    same = dict(data, old_ann=str(copied), old_img_dir=data['img_dir'])
    run_protocol(config, work_dir=out, checkpoint=checkpoint, variants=['joint'], **same)
    merged = json.loads((out / 'configs/joint/annotations/train.json').read_text())
    assert len(merged['images']) == len(truth['images'])
    assert len(merged['annotations']) == len(truth['annotations'])


@pytest.mark.parametrize('variants', [['joint'], ['best', 'replay'], ['bets']])
def test_a_variant_without_its_data_is_refused_before_anything_runs(
    variants, data, tiny_shapes, tmp_path
):
    config, given = write_teacher(tmp_path, retina(2), tiny_shapes), dict(data, old_ann=None)
    with pytest.raises(LaunchError, match=f'{variants[-1]}.*joint needs --old-ann'):
        run_protocol(config, work_dir=tmp_path / 'out', variants=variants, **given)
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    'given, text',
    [
        (dict(classes=['bolt']), "has no category 'bolt'"),
        (dict(val='gone.json'), "'gone.json' cannot be read .*No such file"),
        (dict(old_ann='gone.json'), "'gone.json' cannot be read .*No such file"),
    ],
)
def test_wrong_data_are_refused_before_the_teacher_trains(given, text, data, tiny_shapes, tmp_path):
    config = write_teacher(tmp_path, retina(2), tiny_shapes)
    with pytest.raises(LaunchError, match=text):
        run_protocol(config, work_dir=tmp_path / 'out', **{**data, **given})
    assert not (tmp_path / 'out').exists()


@pytest.mark.slow
def test_trains_tests_and_does_not_do_it_twice(data, tiny_shapes, tmp_path, monkeypatch):
    config, out = write_teacher(tmp_path, yolo(2), tiny_shapes), tmp_path / 'out'

    options = dict(cfg_options=ONE_EPOCH, variants=['finetune', 'best', 'joint'])

    def run():
        return run_protocol(config, work_dir=out, seeds=(3,), **options, **data)

    teacher, students = run()
    assert list(teacher.runs) == ['teacher']
    assert list(students.runs) == options['variants']
    assert teacher.seeds == students.seeds == [3]
    assert {'base_mAP', 'novel_mAP', 'harmonic_mAP', 'bbox_mAP'} <= set(students.metrics)
    logs = {name: (out / name / 'seed3/train.log').read_text() for name in students.runs}
    assert [name for name in logs if 'Started from the teacher' in logs[name]] == [
        'finetune',
        'best',
    ]
    assert [name for name in logs if 'loss_distill_' in logs[name]] == ['best']
    assert (out / 'compare.png').is_file()
    monkeypatch.setattr(runs.subprocess, 'call', lambda *a, **k: pytest.fail('ran again'))
    assert format_table(*run()) == format_table(teacher, students)


def test_a_failing_run_is_an_error_with_its_log(data, tiny_shapes, tmp_path, monkeypatch):
    def fail(command, stdout, **kwargs):
        stdout.write('a reason')
        return 1

    monkeypatch.setattr(runs.subprocess, 'call', fail)
    config = write_teacher(tmp_path, retina(2), tiny_shapes)
    with pytest.raises(LaunchError, match=r'train.py failed for .*seed0 \(see .*train.log\)'):
        run_protocol(config, work_dir=tmp_path / 'out', seeds=(0, 1), **data)
    (log,) = (tmp_path / 'out').rglob('train.log')
    assert log.read_text() == 'a reason'


@pytest.mark.parametrize(
    'error, shown', [(LaunchError('a run'), SystemExit), (RuntimeError('a bug'), RuntimeError)]
)
def test_only_a_run_that_fails_ends_the_program_in_one_line(error, shown, repo_root, monkeypatch):
    monkeypatch.setattr('protocol.run_protocol', mock.Mock(side_effect=error))
    given = '--ann a --img-dir b --classes c --val d --work-dir e'.split()
    monkeypatch.setattr(sys, 'argv', ['run.py', 'old.py', *given])
    with pytest.raises(shown, match=str(error)):
        runpy.run_path(str(repo_root / 'projects/add_classes/run.py'), run_name='__main__')


def test_table():
    nan = float('nan')
    known = dict(base_mAP=0.4, novel_mAP=nan, harmonic_mAP=nan, bbox_mAP=0.4)
    teacher = Comparison({'teacher': [RunResult(known, None)]}, [4])
    found = [dict(base_mAP=0.4, novel_mAP=0.2, bbox_mAP=x) for x in (0.4, 0.5)]
    students = Comparison({'best': [RunResult(metrics, None) for metrics in found]}, [4, 5])
    assert format_table(teacher, students).splitlines()[2:] == [
        '| teacher | 40.0 | - | - | 40.0 | 1 |',
        '| best | 40.0 ± 0.0 | 20.0 ± 0.0 | - | 45.0 ± 7.1 | 2 |',
    ]
