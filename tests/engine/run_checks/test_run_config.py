"""Configs whose data do not fit are refused before anything is built."""

import json
import logging
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import pytest
from mmdet.datasets import CocoDataset
from mmdet.evaluation import CocoMetric
from mmdet.registry import DATASETS, HOOKS, MODELS
from mmengine.config import Config, ConfigDict
from mmengine.hooks import CheckpointHook
from torch import nn

from mmdet_contrast.engine.run_checks import check_run_config
from mmdet_contrast.engine.run_checks.data_config import data_parts
from mmdet_contrast.utils.config import LaunchError, config_root

PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(64, 64), keep_ratio=True),
    dict(type='PackDetInputs'),
]


def content(names=('cat', 'dog'), sizes=((40, 30), (30, 40))):
    """A COCO file with one box of each class in each image."""
    coco = dict(categories=[dict(id=i + 1, name=name) for i, name in enumerate(names)])
    coco['images'] = [
        dict(id=i, file_name=f'{i}.jpg', width=w, height=h) for i, (w, h) in enumerate(sizes)
    ]
    coco['annotations'] = [
        dict(image_id=image['id'], category_id=category['id'], bbox=[1, 1, 9, 9], area=81)
        for image in coco['images']
        for category in coco['categories']
    ]
    for i, annotation in enumerate(coco['annotations']):
        annotation.update(id=i + 1, iscrowd=0)
    return coco


@pytest.fixture
def data(tmp_path):
    """Write annotation files, and give the configs of a run with them."""
    (tmp_path / 'img').mkdir()
    for i in range(2):
        (tmp_path / 'img' / f'{i}.jpg').touch()

    def write(**files):
        configs = {}
        for split in ('train', 'val', 'test'):
            file = tmp_path / f'{split}.json'
            file.write_text(json.dumps(files.get(split) or content()))
            dataset = dict(
                type='CocoDataset',
                data_root=str(tmp_path),
                ann_file=file.name,
                data_prefix=dict(img='img/'),
                metainfo=dict(classes=('cat', 'dog')),
                pipeline=deepcopy(PIPELINE),
                test_mode=split != 'train',
            )
            configs[f'{split}_dataloader'] = dict(batch_size=1, dataset=dataset)
            configs[f'{split}_evaluator'] = dict(type='CocoMetric', ann_file=str(file))
        return ConfigDict(configs)

    return write


@pytest.fixture
def check(tmp_path, caplog):
    """Check configs; returns what has been logged."""

    def run(configs, mode='train', model=None, hooks=()):
        runner = SimpleNamespace(
            model=model or nn.Identity(),
            hooks=hooks,
            cfg=deepcopy(configs),
            work_dir=str(tmp_path / 'work'),
            logger=logging.getLogger('run_checks'),
        )
        caplog.clear()
        with caplog.at_level(logging.INFO, 'run_checks'):
            check_run_config(runner, configs, mode)
        run.cfg = runner.cfg
        return [record.getMessage() for record in caplog.records]

    return run


def refused(check, configs, message, mode='train', **kwargs):
    with pytest.raises(LaunchError, match=message) as error:
        check(configs, mode, **kwargs)
    assert '\n' not in str(error.value)


# ------------------------------------------------------------------------------- annotation files


def test_good_data_pass_in_silence(data, check):
    configs = data()
    before = deepcopy(configs)
    for mode in ('train', 'val', 'test'):
        assert check(configs, mode) == []
    assert configs == before
    # what is built already is not looked at
    assert check(ConfigDict(train_dataloader=object(), val_evaluator=[object()]), 'train') == []


@pytest.mark.parametrize('wrapped', ['no', 'repeat', 'concat', 'crops'])
def test_a_damaged_file_is_refused_in_every_wrapper(data, check, wrapped):
    coco = content()
    coco['annotations'][0]['bbox'] = []
    configs = data(train=coco)
    assert check(configs, 'test') == []
    inner = configs.train_dataloader.dataset
    good = configs.val_dataloader.dataset
    configs.train_dataloader.dataset = dict(
        no=inner,
        repeat=dict(type='RepeatDataset', times=2, dataset=inner),
        concat=dict(type='ConcatDataset', datasets=[good, inner]),
        crops=dict(type='BoxCrops', dataset=inner),
    )[wrapped]
    refused(check, configs, r'train.json.*: annotation 1 has bbox')


def test_files_of_the_run_only_are_read(data, check):
    configs = data(test=dict(categories=0))
    check(configs, 'train')
    refused(check, configs, 'test.json', 'test')
    configs.val_dataloader.dataset.ann_file = 'gone.json'
    refused(check, configs, 'gone.json.* cannot be read', 'train')


def test_files_that_a_class_reads_in_its_own_way_are_left_to_it(data, check):
    @DATASETS.register_module(force=True)
    class OwnRules(CocoDataset):
        def parse_data_info(self, raw_data_info):
            raise NotImplementedError

    configs = data(train=[])
    configs.train_dataloader.dataset.type = 'OwnRules'
    assert check(configs) == []


# ---------------------------------------------------------------------------------------- classes


@pytest.mark.parametrize('mode', ['train', 'val', 'test'])
@pytest.mark.parametrize(
    ('classes', 'message'),
    [
        (('cat', 'dgo'), "metainfo has the classes .*'dgo'.* among .*'cat', 'dog'"),
        (('dog', 'cat'), "has \\('cat', 'dog'\\) in this order"),
        ('cat', "classes=\\('cat',\\), with the comma"),
        (None, "the 80 classes of CocoDataset.* has \\('cat', 'dog'\\): set metainfo"),
    ],
)
def test_classes_are_those_of_the_file(data, check, mode, classes, message):
    configs = data()
    configs[f'{mode}_dataloader'].dataset.metainfo = dict(classes=classes) if classes else None
    refused(check, configs, f'^{mode}_dataloader: .*{message}', mode)


def test_names_of_classes_in_a_file(data, check, tmp_path):
    (tmp_path / 'names.txt').write_text('cat\ndog\n')
    configs = data()
    configs.train_dataloader.dataset.metainfo = dict(classes=str(tmp_path / 'names.txt'))
    assert check(configs) == []


def test_data_of_a_run_have_one_list_of_classes(data, check):
    configs = data()
    configs.val_dataloader.dataset.metainfo = dict(classes=('dog',))
    refused(check, configs, r"train_dataloader has .*'cat', 'dog'.* val_dataloader \('dog',\)")
    configs = data()
    configs.test_dataloader.dataset.metainfo = dict(classes=('dog',))
    for mode in ('train', 'test'):
        refused(check, configs, 'labels are positions in these lists', mode)
    # left over from a base config, and not used
    configs.test_dataloader.dataset.metainfo = None
    assert check(configs, 'train') == []


def test_parts_of_a_concatenation_have_one_list_of_classes(data, check):
    configs = data()
    inner = configs.train_dataloader.dataset
    other = ConfigDict(deepcopy(inner), metainfo=dict(classes=('dog',)))
    configs.train_dataloader.dataset = dict(type='ConcatDataset', datasets=[inner, inner])
    assert check(configs) == []
    configs.train_dataloader.dataset = dict(type='ConcatDataset', datasets=[inner, other])
    refused(check, configs, r"dataset.datasets\[0\] has .* and .*datasets\[1\] \('dog',\)")


def test_heads_have_the_classes_of_validation_and_test(data, check):
    configs = data()
    for number in (2, 1, 3):
        head = dict(type='mmdet.RetinaHead', num_classes=number, in_channels=8)
        model = nn.Sequential(MODELS.build(head))
        for mode in ('train', 'val', 'test'):
            if number == 2:
                check(configs, mode, model)
            else:
                text = f'num_classes={number}, but .* has the 2 classes'
                refused(check, configs, text, mode, model=model)


def test_data_without_classes_pass(data, check):
    """Pre-training reads no boxes, and names no class."""
    configs = data(train=dict(images=content()['images']))
    configs.train_dataloader.dataset.update(
        metainfo=dict(classes=()), pipeline=[dict(type='LoadUnlabelledImage')]
    )
    assert check(configs) == []


# ------------------------------------------------------------------------------------------ boxes


def test_training_data_have_a_box_to_learn_from(data, check):
    coco = content()
    for annotation in coco['annotations']:
        annotation['iscrowd'] = 1
    text = r"no box of the classes \('cat', 'dog'\) .*train.json' has 0 usable boxes, and 4 crowd"
    configs = data(train=coco)
    refused(check, configs, text)
    # it is no training
    configs = data(val=coco, test=coco)
    check(configs, 'test')
    configs = data(train=dict(content(), annotations=[]))
    refused(check, configs, 'has 0 usable boxes, and no other annotations')
    # pictures of background beside others
    inner = configs.train_dataloader.dataset
    configs.train_dataloader.dataset = dict(
        type='ConcatDataset', datasets=[inner, configs.val_dataloader.dataset]
    )
    check(configs)


def test_boxes_of_other_classes_do_not_count(data, check):
    coco = content(names=('cat', 'dog', 'cow'))
    coco['annotations'] = [x for x in coco['annotations'] if x['category_id'] == 3]
    refused(check, data(train=coco), 'has 2 usable boxes')


def test_what_is_dropped_is_logged_once(data, check):
    coco = content()
    coco['annotations'][0]['bbox'] = [1, 1, 0, 5]
    coco['annotations'][1]['iscrowd'] = 1
    (line,) = check(data(train=coco))
    assert 'has 2 usable boxes, and 1 boxes without area, 1 crowd regions' in line


def test_images_that_are_all_too_small(data, check):
    configs = data()
    configs.train_dataloader.dataset.filter_cfg = dict(min_size=50)
    refused(check, configs, r'min_size=50\) leaves no image')


@pytest.mark.parametrize('lack', ['area', 'iscrowd', 'id'])
def test_a_file_without_areas_is_completed(data, check, tmp_path, lack):
    coco = content()
    for annotation in coco['annotations'][:1]:
        if lack == 'id':
            annotation['id'] = 0
        else:
            del annotation[lack]
    configs = data(train=coco, val=coco)
    lines = check(configs)
    assert len(lines) == 2 and all('uses the completed copy' in line for line in lines)
    files = [configs[f'{split}_dataloader'].dataset.ann_file for split in ('train', 'val')]
    assert len(set(files)) == 2 and files[1] == configs.val_evaluator.ann_file
    # for hooks that build data sets from the runner's config
    assert check.cfg.train_dataloader.dataset.ann_file == files[0]
    for file in files:
        assert file.startswith(str(tmp_path / 'work' / 'annotations'))
        with open(file) as stream:
            annotation = json.load(stream)['annotations'][0]
        assert annotation['area'] == 81 and annotation['iscrowd'] == 0 and annotation['id'] > 0
    # the configs build with it
    assert len(DATASETS.build(configs.train_dataloader.dataset)) == 2
    assert CocoMetric(ann_file=files[1])
    assert check(configs) == []


def test_a_machine_with_another_disk_writes_its_own_copy(data, check, tmp_path, monkeypatch):
    coco = content()
    del coco['annotations'][0]['area']
    copy = tmp_path / 'there' / 'train_1.json'
    # what the first process, on the other machine, tells
    answer = {str(tmp_path / 'train.json'): str(copy)}
    place = 'mmdet_contrast.engine.run_checks.run_config.in_first_process'
    monkeypatch.setattr(place, lambda function: answer)
    configs = data(train=coco)
    check(configs)
    assert configs.train_dataloader.dataset.ann_file == str(copy)
    assert json.loads(copy.read_text())['annotations'][0]['area'] == 81


def test_a_changed_file_gets_another_copy(data, check):
    names = set()
    for box in ([1, 1, 9, 9], [1, 1, 9, 11]):
        coco = content()
        coco['annotations'][0]['bbox'] = box
        del coco['annotations'][0]['area']
        configs = data(train=coco)
        check(configs)
        names.add(configs.train_dataloader.dataset.ann_file)
    assert len(names) == 2


# ----------------------------------------------------------------------------------------- images


@pytest.mark.parametrize(
    ('step', 'fits'),
    [
        (dict(type='Resize', scale=(640, 640), keep_ratio=True), False),
        (dict(type='Resize', scale=(640, 640), keep_ratio=False), True),
        (dict(type='Resize', scale=(4000, 640), keep_ratio=True), True),
        (dict(type='mmdet.Resize', scale=640, keep_ratio=True), False),
        (dict(type='RandomChoiceResize', scales=[(4000, 9), (64, 9)], keep_ratio=True), False),
        (dict(type='RandomChoiceResize', scales=[(4000, 9)], keep_ratio=True), True),
        (dict(type='RandomResize', scale=(2000, 9), keep_ratio=True), True),
        (
            dict(type='RandomResize', scale=(2000, 90), ratio_range=(0.1, 2), keep_ratio=True),
            False,
        ),
        (
            dict(type='RandomResize', scale=[(4000, 9), (640, 9)], keep_ratio=True),
            False,
        ),
        (dict(type='CachedMosaic', img_scale=(1800, 1800)), False),
        (dict(type='Mosaic', img_scale=(2001, 2001)), True),
        (dict(type='RandomCrop', crop_size=(8, 8)), True),
    ],
)
def test_images_of_which_nothing_is_left(data, check, step, fits):
    coco = content(sizes=((40, 30), (4000, 2)))
    for mode in ('train', 'val', 'test'):
        configs = data(**{mode: coco})
        dataset = configs[f'{mode}_dataloader'].dataset
        dataset.pipeline = [*PIPELINE[:2], dict(type='RandomFlip'), step, *PIPELINE[2:]]
        if step['type'] == 'RandomResize' or fits:
            # what comes after is not judged by the size of the file
            dataset.pipeline.pop(-2)
        if fits:
            check(configs, mode)
            continue
        text = f"{mode}_dataloader: image 1 .'1.jpg'.* is 4000 x 2 pixels .*take it out"
        refused(check, configs, text, mode)
        dataset.filter_cfg = dict(min_size=3)
        if mode == 'train':
            check(configs, mode)
        else:
            # MMDetection filters training data only
            refused(check, configs, 'larger scale', mode)


def test_folder_of_the_images(data, check):
    configs = data()
    configs.train_dataloader.dataset.data_prefix = dict(img='images/')
    refused(check, configs, r"images/0.jpg' does not exist.*data_prefix=dict.img=....*'images/'")
    # read from elsewhere
    configs.train_dataloader.dataset.pipeline[0].backend_args = dict(backend='http')
    check(configs)
    configs.train_dataloader.dataset.data_prefix = dict(image='img/')
    refused(check, configs, "data_prefix={'image': 'img/'} does not say where")
    configs.train_dataloader.dataset.data_prefix = 'img/'
    refused(check, configs, "data_prefix='img/' does not say where")


def test_a_missing_image_is_not_the_wrong_folder(data, check, tmp_path):
    (tmp_path / 'img' / '0.jpg').unlink()
    check(data())


# -------------------------------------------------------------------------------------- evaluator


@pytest.mark.parametrize('mode', ['val', 'test'])
def test_the_metric_has_the_images_of_the_data(data, check, tmp_path, mode):
    configs = data()
    other = tmp_path / 'other.json'
    evaluator = configs[f'{mode}_evaluator']
    evaluator.ann_file = str(other)

    coco = content()
    for image in coco['images']:
        # as seen from another folder
        image['file_name'] = f'img/{image["file_name"]}'
    other.write_text(json.dumps(coco))
    assert check(configs, mode) == []

    coco['images'][0]['file_name'], coco['images'][1]['file_name'] = '1.jpg', '0.jpg'
    other.write_text(json.dumps(coco))
    refused(check, configs, f"{mode}_evaluator: image 0 is '0.jpg' .* but is '1.jpg' in", mode)

    coco = content(sizes=[(40, 30)])
    other.write_text(json.dumps(coco))
    refused(check, configs, "image 1 is '1.jpg' .* but does not exist in ann_file", mode)

    other.write_text(json.dumps(content(names=('dog', 'cat'))))
    refused(check, configs, f'{mode}_evaluator: metainfo has the classes', mode)

    other.write_text(json.dumps(content(sizes=[(40, 30)] * 3)))
    (line,) = check(configs, mode)
    assert '1 images that' in line
    configs[f'{mode}_evaluator'] = dict(metrics=[dict(type='LabelAccuracy')])
    assert check(configs, mode) == []


def test_metrics_with_rules_or_data_of_their_own_are_left_to_them(data, check, tmp_path):
    configs = data()
    # LVIS files have other keys, and each metric of several data sets has its own
    (tmp_path / 'other.json').write_text('{}')
    other = dict(type='LVISMetric', ann_file=str(tmp_path / 'other.json'))
    for evaluator in (other, dict(type='MultiDatasetsEvaluator', metrics=[other, other])):
        configs.val_evaluator = evaluator
        assert check(configs) == []


def test_videos_are_not_compared(data, check):
    configs = data()
    configs.test_dataloader.dataset = dict(
        type='MOTChallengeDataset', metainfo=dict(classes=('a',))
    )
    assert check(configs) == []


def test_best_checkpoint_of_another_loop_is_left_to_it(data, check):
    configs = data()
    hooks = [CheckpointHook(save_best='teacher/coco/bbox_mAP', rule='greater')]
    configs.val_cfg = dict(type='TeacherStudentValLoop')
    assert check(configs, hooks=hooks) == []
    configs.val_cfg = dict(type='ValLoop')
    refused(check, configs, "did you mean 'coco/bbox_mAP'", hooks=hooks)


def test_concatenated_validation_data_share_no_ids(data, check):
    configs = data()
    inner = configs.val_dataloader.dataset
    other = ConfigDict(deepcopy(inner), ann_file='test.json')
    configs.val_dataloader.dataset = dict(type='ConcatDataset', datasets=[inner, other])
    check(configs, 'val')
    coco = content()
    coco['images'][0]['file_name'] = '7.jpg'
    with open(f'{inner.data_root}/test.json', 'w') as stream:
        json.dump(coco, stream)
    refused(check, configs, "image 0 is '7.jpg' .*datasets.1.*, but is '0.jpg'", 'val')


# ---------------------------------------------------------------------------------- shipped configs

SHIPPED = sorted(
    path
    for folder in ('configs', 'projects')
    for path in (config_root().parent / folder).rglob('*.py')
    if '_base_' not in path.parts and '_base_ = ' in path.read_text('utf-8')
)


@pytest.mark.parametrize('path', SHIPPED, ids=lambda path: path.stem)
def test_shipped_configs_pass(check, tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    cfg = Config.fromfile(path)
    splits = [split for split in ('train', 'val', 'test') if cfg.get(f'{split}_dataloader')]
    for split in splits:
        for part in data_parts(cfg[f'{split}_dataloader'], f'{split}_dataloader'):
            names = part.classes or part.kind.METAINFO.get('classes') or ('thing',)
            for file in (part.path, *part.image_paths(['0.jpg'])) if part.path else ():
                Path(file).parent.mkdir(parents=True, exist_ok=True)
                Path(file).write_text(json.dumps(content(names, [(64, 64)])))
    for split in splits:
        # hooks as they are in the config
        saving = HOOKS.build(cfg.default_hooks.checkpoint)
        assert check(cfg, split, hooks=[saving]) == []
