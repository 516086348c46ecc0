"""Classes are added to detectors of every head: configs, refusals, runs of one epoch."""

import json
import os.path as osp
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from head_toys import CLASSES, HEADS, retina, save_teacher, yolo
from mmdet.registry import DATASETS, RUNNERS
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.hub import get_config
from mmengine.optim import build_optim_wrapper
from torch import nn

from mmdet_contrast import config_path
from mmdet_contrast.apis import add_classes, add_classes_config, addition_config
from mmdet_contrast.utils.config import LaunchError

OLD, NEW = CLASSES[:2], CLASSES[2:]
# two iterations
SHORT = {'train_cfg.max_epochs': 1, 'train_dataloader.batch_size': 6}
MOSAIC = dict(type='CachedMosaic', img_scale=(96, 96), max_cached_images=4)


def write_detector(folder, model, classes=OLD, **settings):
    """Write ``old.py`` and ``old.pth`` of a detector."""
    folder.mkdir(parents=True, exist_ok=True)
    base = 'yolov8/yolov8_n_shapes.py' if model.type == 'YOLOv8Detector' else 'retina_shapes.py'
    cfg = Config.fromfile(config_path(base))
    cfg.model = model
    cfg.merge_from_dict(settings)
    (folder / 'old.py').write_text(cfg.pretty_text)
    return str(folder / 'old.py'), save_teacher(model, folder / 'old.pth', classes)


@pytest.fixture(scope='module')
def detector(tmp_path_factory):
    return write_detector(tmp_path_factory.mktemp('old'), retina(2))


@pytest.fixture(scope='module')
def pictures(tiny_shapes):
    """The paths of pictures that annotate all classes, for training and for validation."""
    file = 'annotations/instances_{}.json'.format
    return SimpleNamespace(
        ann=str(tiny_shapes / file('train')),
        img_dir=str(tiny_shapes / 'train'),
        val=str(tiny_shapes / file('val')),
        val_img_dir=str(tiny_shapes / 'val'),
    )


def prepare(detector, pictures, tmp_path, **kwargs):
    options = dict(dict(work_dir=str(tmp_path / 'work'), cfg_options=SHORT), **kwargs)
    classes = options.pop('classes', NEW)
    img_dir = options.pop('img_dir', pictures.img_dir)
    return add_classes_config(*detector, pictures.ann, img_dir, classes, **options)


def edited(path, out, change):
    """Copy an annotation file, changed."""
    content = json.loads(open(path).read())
    change(content)
    out.write_text(json.dumps(content))
    return str(out)


# --- the config

DISTRIBUTION = dict(
    source='bbox_head.reg', loss=dict(type='BoxDistributionKLLoss', reg_max=16), weight=2.5
)
BOXES = dict(source='bbox_head.boxes', loss=dict(type='GIoULoss'), weight=1.0)
CENTERNESS = dict(source='bbox_head.centerness', loss=dict(type='LogitsKLDivergence'), weight=1.0)
CLASSES_KL = dict(source='bbox_head.cls', loss=dict(type='LogitsKLDivergence'), weight=10.0)
FEATURES = dict(source='neck', loss=dict(type='ChannelWiseDivergence'), weight=8.0)
TERMS = dict(
    yolo=[dict(CLASSES_KL, weight=125.0), DISTRIBUTION, FEATURES],
    retina=[CLASSES_KL, BOXES, FEATURES],
    gfl=[
        CLASSES_KL,
        dict(DISTRIBUTION, loss=dict(type='BoxDistributionKLLoss', reg_max=17)),
        FEATURES,
    ],
    fcos=[CLASSES_KL, BOXES, CENTERNESS, FEATURES],
    atss=[CLASSES_KL, BOXES, CENTERNESS, FEATURES],
    rtmdet=[CLASSES_KL, BOXES, FEATURES],
)


class Watch(Hook):
    """Looks at the first iteration of a student."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter > 0:
            return
        student, teacher = runner.model.student, runner.model.teacher.model
        self.alike, self.by_class = [], []
        theirs = teacher.state_dict()
        for name, ours in student.state_dict().items():
            ours, other = ours.cpu(), theirs[name].cpu()
            if ours.shape == other.shape:
                self.alike.append(torch.equal(ours, other))
            else:
                rows = ours.unflatten(0, (-1, 3))[:, :2], other.unflatten(0, (-1, 2))
                self.by_class.append(torch.equal(*rows))
        self.maps = []
        self.handle = student.bbox_head.register_forward_hook(self.keep)

    def keep(self, module, inputs, outputs):
        for level in outputs[0]:
            level.retain_grad()
            self.maps.append(level)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter > 0:
            return
        self.handle.remove()
        grads = [level.grad.unflatten(1, (-1, 3)) for level in self.maps]
        self.grads = torch.cat([grad.movedim(2, 0).flatten(1) for grad in grads], dim=1)


@pytest.mark.parametrize('head', list(HEADS))
def test_a_detector_of_every_head_trains(head, pictures, tmp_path):
    detector = write_detector(tmp_path / 'old', HEADS[head](2))
    prepare(detector, pictures, tmp_path)
    # as `mim train` does it
    cfg = Config.fromfile(tmp_path / 'work/add_classes.py')
    assert cfg.model.student.bbox_head.num_classes == 3 and cfg.model.norm_eval
    assert cfg.model.teacher == Config.fromfile(detector[0]).model
    assert [dict(term) for term in cfg.model.distillers] == TERMS[head]
    assert not cfg.get('val_dataloader')
    runner, watch = RUNNERS.build(cfg), Watch()
    runner.register_hook(watch, priority='LOWEST')
    runner.train()
    # the student is the teacher, and has a row of its own for the new class
    assert all(watch.alike) and all(watch.by_class) and watch.by_class
    # what is not annotated is no background; equal maps teach nothing
    assert watch.grads[:2].max() < 0.1 * watch.grads[2].max()
    (log,) = (tmp_path / 'work').glob('*/vis_data/scalars.json')
    losses = [json.loads(line) for line in log.read_text().splitlines()][-1]
    names = {f'loss_distill_{t["source"].replace(".", "_")}' for t in cfg.model.distillers}
    assert names == {key for key in losses if 'distill' in key}
    # the student has hardly moved: some terms are 0 within rounding
    values = [losses[key] for key in names]
    assert min(values) > -1e-6 and 1e-8 < max(values) < 100
    meta = torch.load(tmp_path / 'work/epoch_1.pth', weights_only=False)['meta']
    assert tuple(meta['dataset_meta']['classes']) == CLASSES


def test_what_is_taken_from_the_config(detector, pictures, tmp_path):
    cfg = prepare(detector, pictures, tmp_path, cfg_options={'train_dataloader.batch_size': 6})
    # 10 epochs of 2 iterations would be few
    assert cfg.train_cfg.max_epochs == 500
    assert cfg.default_hooks.checkpoint.interval == 50
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(0.001)
    assert cfg.optim_wrapper.clip_grad.max_norm == 30
    warm_up, cosine = cfg.param_scheduler
    assert warm_up.end == 100 and cosine.T_max == 500 and cosine.eta_min_ratio == 0.05
    assert cfg.load_from is None and cfg.model.start_from_teacher
    assert cfg.train_dataloader.dataset.pipeline[2].type == 'Resize'
    assert cfg.train_dataloader.dataset.filter_cfg == dict(filter_empty_gt=False)
    plain = Config.fromfile(tmp_path / 'work/detector.py')
    assert plain.optim_wrapper.optimizer.lr == 0.002 and plain.train_cfg.max_epochs == 10
    assert len(plain.param_scheduler) == 2 and plain.param_scheduler[1].T_max == 10
    assert plain.model.type == 'RetinaNet' and plain.model.bbox_head.num_classes == 3
    ann = plain.train_dataloader.dataset.ann_file
    assert (
        ann
        == cfg.train_dataloader.dataset.ann_file
        == str(tmp_path / 'work/annotations/train.json')
    )


def test_epochs_options_and_hooks(pictures, tmp_path):
    model = yolo(2)
    model.backbone.init_cfg = dict(type='Pretrained', checkpoint='gone.pth')
    normal = dict(type='Normal', layer='Conv2d', std=0.01)
    model.bbox_head.init_cfg = [normal, dict(type='Pretrained', checkpoint='gone.pth')]
    hooks = [dict(type=f'{kind}Hook') for kind in ('BiasWarmup', 'EarlyStopping', 'EMA')]
    settings = dict(
        custom_hooks=hooks,
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=90, _delete_=True),
        default_hooks=dict(run_check=dict(type='RunCheckHook', trust_checkpoint=True)),
        **{'train_dataloader.sampler.type': 'InfiniteSampler', 'log_processor.by_epoch': False},
    )
    saved = yolo(2)
    detector = write_detector(tmp_path / 'old', saved)
    cfg = Config.fromfile(detector[0])
    cfg.model = model
    cfg.merge_from_dict(settings)
    options = {'train_dataloader.batch_size': 1, 'optim_wrapper.optimizer.lr': 0.5,
               'model.distillers.0.weight': 9.0}  # fmt: skip
    made = add_classes_config(
        cfg, detector[1], pictures.ann, pictures.img_dir, NEW,
        work_dir=str(tmp_path / 'work'), cfg_options=options,
    )  # fmt: skip
    assert made.train_cfg.type == 'EpochBasedTrainLoop' and made.log_processor.by_epoch
    # 12 pictures, one by one, of 24 epochs: 288 iterations
    assert made.train_cfg.max_epochs == 84
    assert made.train_dataloader.sampler == dict(type='DefaultSampler', shuffle=True)
    assert [hook.type for hook in made.custom_hooks] == ['EMAHook', 'DistillationHook']
    assert made.default_hooks.run_check.trust_checkpoint
    assert made.optim_wrapper.optimizer.lr == 0.5 and made.model.distillers[0].weight == 9
    assert made.model.student.bbox_head.head_module.cls_channels == 32
    assert 'init_cfg' not in made.model.student.backbone
    assert made.model.student.bbox_head.init_cfg == [normal]


def test_what_detects_is_there_without_new_data_to_evaluate_on(detector, pictures, tmp_path):
    made = prepare((detector[0], Path(detector[1])), pictures, tmp_path)
    assert 'val_dataloader' not in made and 'test_dataloader' not in made
    plain, old = Config.fromfile(tmp_path / 'work/detector.py'), Config.fromfile(detector[0])
    assert plain.test_dataloader.dataset.pipeline == old.test_dataloader.dataset.pipeline
    # the same as in training, or the config would be refused
    assert plain.test_dataloader.dataset.metainfo.classes == (*OLD, *NEW)


def test_the_epochs_of_a_repeated_data_set_are_counted(detector, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(addition_config, 'MIN_ITERATIONS', 1)
    cfg = Config.fromfile(detector[0])
    cfg.train_cfg.max_epochs = 4
    inner = dict(type='ConcatDataset', datasets=[cfg.train_dataloader.dataset])
    cfg.train_dataloader.dataset = dict(type='RepeatDataset', times=3, dataset=inner)
    made = prepare((cfg, detector[1]), pictures, tmp_path, cfg_options={})
    assert made.train_cfg.max_epochs == 12


def test_an_average_of_the_weights_follows_a_short_training(detector, pictures, tmp_path):
    cfg = Config.fromfile(detector[0])
    given = dict(type='mmdet.EMAHook', ema_type='StochasticWeightAverage')
    cfg.custom_hooks = [dict(type='EMAHook', momentum=0.0002, begin_iter=5), given]
    made = prepare((cfg, detector[1]), pictures, tmp_path)
    plain, kept, _ = made.custom_hooks
    assert plain == dict(type='EMAHook', momentum=0.0002, begin_iter=5, ema_type='ExpMomentumEMA')
    assert kept == given
    # the next addition starts from what was given
    detector = Config.fromfile(tmp_path / 'work/detector.py')
    assert detector.custom_hooks[0] == dict(type='EMAHook', momentum=0.0002, begin_iter=5)


def test_a_picture_keeps_the_path_that_tells_what_it_annotates(detector, pictures, tmp_path):
    cfg = Config.fromfile(detector[0])
    cfg.train_dataloader.dataset.pipeline[-1].meta_keys = ('img_id', 'img_shape')
    made = prepare((cfg, detector[1]), pictures, tmp_path)
    keys = made.train_dataloader.dataset.pipeline[-1].meta_keys
    assert keys == ('img_id', 'img_shape', 'img_path')


def test_many_new_classes_make_no_long_name(detector, pictures, tmp_path, monkeypatch):
    names = [f'a part with a name, {number}' for number in range(40)]

    def rename(content):
        first = content['annotations'][0]
        content['categories'] += [dict(id=100 + i, name=name) for i, name in enumerate(names)]
        content['annotations'] += [
            dict(first, id=10**6 + i, category_id=100 + i, bbox=[1, 1, 20, 20], area=400, iscrowd=0)
            for i in range(40)
        ]

    monkeypatch.chdir(tmp_path)
    pictures = SimpleNamespace(**vars(pictures))
    pictures.ann = edited(pictures.ann, tmp_path / 'many.json', rename)
    cfg = prepare(detector, pictures, tmp_path, classes=names, work_dir=None)
    name = osp.basename(cfg.work_dir)
    assert re.fullmatch('old_a_part_with_a_name_0_and_39_more_[0-9a-f]{8}', name)
    cfg = prepare(detector, pictures, tmp_path, classes=names[:2], work_dir=None)
    assert cfg.work_dir.endswith('/old_a_part_with_a_name_0_a_part_with_a_name_1')


def test_the_work_directory_may_be_an_option(detector, pictures, tmp_path):
    options = dict(SHORT, work_dir=str(tmp_path / 'mine'))
    cfg = prepare(detector, pictures, tmp_path, work_dir=None, cfg_options=options)
    assert cfg.work_dir == str(tmp_path / 'mine')
    assert (tmp_path / 'mine/detector.py').is_file()
    assert cfg.train_dataloader.dataset.ann_file.startswith(f'{cfg.work_dir}/')
    cfg = prepare(detector, pictures, tmp_path, cfg_options=options)
    assert cfg.work_dir == str(tmp_path / 'work')


def test_nan_that_nobody_reads_and_infinity_are_written(detector, pictures, tmp_path):
    cfg = Config.fromfile(detector[0])
    cfg.optim_wrapper.clip_grad.max_norm = float('inf')

    def export(content):
        content['images'][0]['date_captured'] = float('nan')
        content['annotations'][0]['score'] = float('nan')

    given = SimpleNamespace(**vars(pictures))
    given.ann = edited(pictures.ann, tmp_path / 'new.json', export)
    val = edited(pictures.val, tmp_path / 'val.json', export)
    options = dict(val=val, val_img_dir=pictures.val_img_dir)
    prepare((cfg, detector[1]), given, tmp_path, **options)
    for name in ('train', 'val'):
        content = json.loads((tmp_path / f'work/annotations/{name}.json').read_text())
        assert content['images'][0]['date_captured'] != content['images'][0]['date_captured']
    for name in ('detector', 'add_classes'):
        made = Config.fromfile(tmp_path / f'work/{name}.py')
        assert made.optim_wrapper.clip_grad.max_norm == float('inf')


def test_pictures_are_mixed_where_they_annotate_the_same(pictures, tmp_path):
    # RandomAffine cuts the picture out of the mosaic
    affine = dict(type='RandomAffine', border=(-48, -48))
    pipeline = Config.fromfile(config_path('retina_shapes.py')).train_pipeline
    plain = [step.type for step in pipeline]
    mixed = [*pipeline[:2], MOSAIC, affine, *pipeline[2:]]
    inner = dict(type='VOCDataset', ann_file='x.txt', pipeline=mixed, filter_cfg=dict(min_size=32))
    wrapped = dict(type='RepeatDataset', times=3, dataset=inner)
    cfg, checkpoint = write_detector(tmp_path / 'old', retina(2))
    cfg = Config.fromfile(cfg)

    def dataset_of():
        return prepare((cfg, checkpoint), pictures, tmp_path).train_dataloader.dataset

    cfg.train_dataloader.dataset = wrapped
    dataset = dataset_of()
    assert dataset.type == 'CocoDataset'
    assert dataset.filter_cfg == dict(min_size=32, filter_empty_gt=False)
    kinds = [step.type for step in dataset.pipeline]
    assert kinds == [*plain[:2], 'CachedMosaic', 'RandomAffine', *plain[2:]]

    def change(content):
        content['images'][0]['annotated_category_ids'] = []

    pictures = SimpleNamespace(**vars(pictures))
    pictures.ann = edited(pictures.ann, tmp_path / 'partly.json', change)
    assert [step.type for step in dataset_of().pipeline] == plain
    detector = Config.fromfile(tmp_path / 'work/detector.py')
    assert [step.type for step in detector.train_dataloader.dataset.pipeline] == kinds
    cfg.train_dataloader.dataset = dict(
        type='MultiImageMixDataset',
        dataset=dict(type='CocoDataset', pipeline=pipeline[:2]),
        pipeline=[dict(type='Mosaic'), affine, *pipeline[2:]],
    )
    assert [step.type for step in dataset_of().pipeline] == plain
    last = [*pipeline[:3], pipeline[-1]]
    hook = dict(type='PipelineSwitchHook', switch_epoch=9, switch_pipeline=last)
    cfg.custom_hooks, cfg.train_dataloader.dataset = [hook], wrapped
    made = prepare((cfg, checkpoint), pictures, tmp_path)
    assert [step.type for step in made.train_dataloader.dataset.pipeline] == [
        step.type for step in last
    ]
    assert [hook.type for hook in made.custom_hooks] == ['DistillationHook']


def test_old_pictures_and_annotated_old_classes(detector, pictures, tmp_path):
    def first_half(content):
        content['images'] = content['images'][:4]
        known = {image['id'] for image in content['images']}
        content['annotations'] = [a for a in content['annotations'] if a['image_id'] in known]

    replay = edited(pictures.val, tmp_path / 'replay.json', first_half)
    cfg = prepare(
        detector,
        pictures,
        tmp_path,
        annotated_classes=OLD[:1],
        replay=replay,
        replay_img_dir=pictures.val_img_dir,
    )
    assert cfg.model.annotated_classes == [*NEW, OLD[0]]
    content = json.loads((tmp_path / 'work/annotations/train.json').read_text())
    found = [(i['file_name'], i['annotated_category_ids']) for i in content['images']]
    assert [ids for name, ids in found if name.startswith(pictures.img_dir)] == [[0, 2]] * 12
    assert [ids for name, ids in found if name.startswith(pictures.val_img_dir)] == [[0, 1]] * 4


@pytest.mark.parametrize('annotated', [[0], []])
def test_old_pictures_annotate_the_classes_of_which_their_file_has_a_box(
    detector, pictures, tmp_path, annotated
):
    names = [OLD[label] for label in annotated]

    def only_those(content):
        ids = [c['id'] for c in content['categories'] if c['name'] in names]
        kept = [a for a in content['annotations'] if a['category_id'] in ids]
        content['annotations'] = kept
        if not kept:
            # as in the file of a test whose answers are not public
            del content['annotations']

    replay = edited(pictures.val, tmp_path / 'replay.json', only_those)
    options = dict(replay=replay, replay_img_dir=pictures.val_img_dir)
    prepare(detector, pictures, tmp_path, **options)
    content = json.loads((tmp_path / 'work/annotations/train.json').read_text())
    old = [i for i in content['images'] if i['file_name'].startswith(pictures.val_img_dir)]
    assert len(old) == 4
    assert all(image['annotated_category_ids'] == annotated for image in old)
    ids = {image['id'] for image in old}
    labels = {a['category_id'] for a in content['annotations'] if a['image_id'] in ids}
    assert labels == set(annotated)


def test_pictures_without_annotations_are_kept_where_empty_ones_are_filtered(pictures, tmp_path):
    filtered = {'train_dataloader.dataset.filter_cfg': dict(filter_empty_gt=True, min_size=8)}
    detector = write_detector(tmp_path / 'filtered', retina(2), **filtered)

    def only_new(content):
        (key,) = [c['id'] for c in content['categories'] if c['name'] == NEW[0]]
        content['annotations'] = [a for a in content['annotations'] if a['category_id'] == key]
        counts['new'] = len({a['image_id'] for a in content['annotations']})

    counts, pictures = {}, SimpleNamespace(**vars(pictures))
    pictures.ann = edited(pictures.ann, tmp_path / 'new.json', only_new)
    replay = edited(pictures.val, tmp_path / 'replay.json', lambda c: c.update(annotations=[]))
    options = dict(replay=replay, replay_img_dir=pictures.val_img_dir)
    cfg = prepare(detector, pictures, tmp_path, **options)
    assert 0 < counts['new'] < 12
    old = len(json.loads(open(pictures.val).read())['images'])
    dataset = DATASETS.build(dict(cfg.train_dataloader.dataset, pipeline=[]))
    assert len(dataset) == counts['new'] + old
    assert dataset.filter_cfg == dict(filter_empty_gt=False, min_size=8)
    # the next addition asks for the same
    made = Config.fromfile(tmp_path / 'work/detector.py')
    assert made.train_dataloader.dataset.filter_cfg == dict(filter_empty_gt=True, min_size=8)


# --- refusals


@pytest.mark.parametrize(
    ('kwargs', 'text'),
    [
        (dict(classes=OLD[:1]), 'the detector knows .* already'),
        (dict(classes=[NEW[0]] * 2), 'each once'),
        (dict(classes=['screw']), "no category 'screw', but striped_disc"),
        (dict(annotated_classes=['screw']), "no category 'screw'"),
        (dict(annotated_classes=NEW), 'annotated_classes names'),
        (dict(img_dir='gone'), r"image '.*/gone/.*' does not exist: give the folder"),
        (dict(replay='gone.json'), "'gone.json' cannot be read .*No such file"),
        (dict(cfg_options={'optim_wraper.lr': 1}), "did you mean 'optim_wrapper'"),
    ],
)
def test_wrong_input_is_refused(kwargs, text, detector, pictures, tmp_path):
    with pytest.raises(LaunchError, match=text):
        prepare(detector, pictures, tmp_path, **kwargs)


def test_a_class_without_a_box_is_refused(detector, pictures, tmp_path):
    def remove(content):
        (key,) = [c['id'] for c in content['categories'] if c['name'] == NEW[0]]
        content['annotations'] = [a for a in content['annotations'] if a['category_id'] != key]

    pictures = SimpleNamespace(**vars(pictures))
    pictures.ann = edited(pictures.ann, tmp_path / 'empty.json', remove)
    with pytest.raises(LaunchError, match='no box of the new classes'):
        prepare(detector, pictures, tmp_path)


def rename(content):
    for category in content['categories']:
        category['name'] = category['name'].title()


@pytest.mark.parametrize(
    ('change', 'name'), [(rename, OLD[0].title()), (lambda c: c.pop('annotations'), OLD[0])]
)
def test_validation_data_without_an_old_class_are_refused(
    change, name, detector, pictures, tmp_path
):
    val = edited(pictures.val, tmp_path / 'val.json', change)
    with pytest.raises(LaunchError, match=f'no box of an old class, of .*{OLD[0]}.*but .*{name}'):
        prepare(detector, pictures, tmp_path, val=val)


def test_learning_rates_by_layer_are_refused(detector, pictures, tmp_path):
    cfg = Config.fromfile(detector[0])
    cfg.optim_wrapper.update(
        constructor='LearningRateDecayOptimizerConstructor',
        paramwise_cfg=dict(decay_rate=0.8, decay_type='layer_wise', num_layers=6),
    )
    with pytest.raises(LaunchError, match='DefaultOptimWrapperConstructor') as refused:
        prepare((cfg, detector[1]), pictures, tmp_path)
    # what the message says helps
    key, value = re.search(r'--cfg-options (\S+)=(\w+)', str(refused.value)).groups()
    made = prepare((cfg, detector[1]), pictures, tmp_path, cfg_options={**SHORT, key: value})
    groups = build_optim_wrapper(nn.Linear(2, 2), made.optim_wrapper).param_groups
    assert len({group['lr'] for group in groups}) == 1


def test_old_pictures_with_other_names_are_refused(detector, pictures, tmp_path):
    replay = edited(pictures.val, tmp_path / 'replay.json', rename)
    with pytest.raises(LaunchError, match=f'{OLD[0].title()}.*and none of the old classes'):
        prepare(detector, pictures, tmp_path, replay=replay)


def test_other_detectors_are_refused(detector, pictures, tmp_path):
    cfg = Config.fromfile(detector[0])

    def refused(text, checkpoint=detector[1], work_dir=None):
        with pytest.raises(LaunchError, match=text):
            prepare((cfg, checkpoint), pictures, tmp_path, work_dir=work_dir)

    folder = str(detector[1])[: -len('/old.pth')]
    refused('would be overwritten', work_dir=folder)
    # the same folder, and a file in another one
    (tmp_path / 'folder').symlink_to(folder)
    (tmp_path / 'file.pth').symlink_to(detector[1])
    refused('would be overwritten', work_dir=str(tmp_path / 'folder'))
    refused('would be overwritten', str(tmp_path / 'file.pth'), work_dir=folder)
    refused('would be overwritten', str(tmp_path / 'file.pth'), work_dir=str(tmp_path))
    nameless = torch.load(detector[1], weights_only=False)
    torch.save(dict(state_dict=nameless['state_dict']), tmp_path / 'nameless.pth')
    refused('does not name its classes', str(tmp_path / 'nameless.pth'))
    nameless['meta'] = dict(CLASSES=('one', 'two', 'three'))
    torch.save(nameless, tmp_path / 'three.pth')
    refused('names 3 classes and the head .* has 2', str(tmp_path / 'three.pth'))
    cfg.model.neck.out_channels = cfg.model.bbox_head.in_channels = 32
    refused('does not fit the model of config.*size mismatch')
    cfg.model.bbox_head.loss_cls = dict(type='CrossEntropyLoss', use_sigmoid=False)
    refused('has softmax scores')
    cfg.model = HEADS['atss'](2)
    cfg.model.bbox_head.type = 'VFNetHead'
    cfg.model.bbox_head.pop('loss_centerness', None)
    cfg.model.bbox_head.anchor_generator.center_offset = 0.0
    cfg.model.bbox_head.loss_cls = dict(type='VarifocalLoss', use_sigmoid=True)
    refused('VFNetHead, gives no maps')
    cfg.model = HEADS['atss'](2)
    cfg.model.bbox_head.type = 'LADHead'
    refused('LADHead, gives no maps')
    cfg.model = get_config('mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py').model
    refused('FasterRCNN .* is a two-stage detector')
    cfg.model = dict(type='DistillationDetector', student=retina(2), teacher=retina(2))
    refused('give the plain config of the student')
    cfg.pop('train_dataloader')
    refused('has no train_dataloader')


# --- runs


def test_twice(pictures, tmp_path):
    """What one addition leaves is what the next one takes; the table is that of the metric."""
    config, checkpoint = write_detector(tmp_path / 'old', yolo(1), classes=OLD[1:])
    saved = torch.load(checkpoint, weights_only=False)
    for key, bias in saved['state_dict'].items():
        # boxes of four strides everywhere find some objects
        if re.search(r'reg_convs.\d.2.bias', key):
            bias.view(4, 16)[:, 2] = 20
    torch.save(saved, checkpoint)
    common = dict(val=pictures.val, val_img_dir=pictures.val_img_dir, cfg_options=SHORT)
    data = pictures.ann, pictures.img_dir
    # of an earlier run
    (tmp_path / 'one').mkdir()
    (tmp_path / 'one/last_checkpoint').write_text('gone.pth')
    one = add_classes(config, checkpoint, *data, NEW, work_dir=str(tmp_path / 'one'), **common)
    two = add_classes(
        one.config, one.checkpoint, *data, OLD[:1], work_dir=str(tmp_path / 'two'), **common
    )
    assert one.old_classes == OLD[1:] and one.new_classes == NEW
    assert two.old_classes == (*OLD[1:], *NEW) and two.new_classes == OLD[:1]
    assert list(two.after) == [*OLD[1:], *NEW, OLD[0]]
    assert one.old_before > 0
    # the evaluation of the plain detector is that of the training
    assert two.before == pytest.approx(one.after)
    # the evaluation before has a folder of its own
    (log,) = (tmp_path / 'two').glob('*/vis_data/scalars.json')
    records = [json.loads(line) for line in log.read_text().splitlines()]
    assert 'loss_distill_bbox_head_cls' in records[0]
    assert records[-1]['coco/base_mAP'] == two.metrics_after['base_mAP']
    for name in ('result.md', 'result.json', 'result.png', 'add_classes.py'):
        assert (tmp_path / 'two' / name).is_file()
    # no more than is needed, and a row for each class
    saved = torch.load(two.checkpoint, weights_only=True)
    assert set(saved) == {'state_dict', 'meta'}
    assert len(saved['state_dict']['bbox_head.head_module.cls_convs.0.2.bias']) == 3


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_commands_of_the_guide(repo_root, detector, tiny_shapes, tmp_path):
    text = (repo_root / 'docs/add_classes.md').read_text()
    block = re.search(r'```shell\n(python tools/add_classes.py .*?)```', text, re.S).group(1)
    work = tmp_path / 'work_dirs/old'
    work.mkdir(parents=True)
    shutil.copy(detector[0], tmp_path / 'old.py')
    shutil.copy(detector[1], work / 'epoch_15.pth')
    for split in ('new', 'val'):
        source = tiny_shapes / f'annotations/instances_{dict(new="train").get(split, split)}.json'
        content = json.loads(source.read_text())
        for category in content['categories']:
            category['name'] = {NEW[0]: 'truck'}.get(category['name'], category['name'])
        content['categories'].append(dict(id=99, name='bus'))
        first = next(a for a in content['annotations'] if a['bbox'][2] > 9 and not a['iscrowd'])
        content['annotations'].append(dict(first, id=10**6, category_id=99))
        (tmp_path / 'data/my/annotations').mkdir(parents=True, exist_ok=True)
        (tmp_path / f'data/my/annotations/{split}.json').write_text(json.dumps(content))
    images = tmp_path / 'data/my/images'
    images.mkdir()
    for split in ('train', 'val'):
        for file in (tiny_shapes / split).iterdir():
            shutil.copy(file, images / file.name)
    for command in re.split(r'(?<!\\)\n', block.strip()):
        words = command.replace('\\\n', ' ').split()
        script = [sys.executable, str(repo_root / words[1])]
        options = ['--cfg-options', 'train_cfg.max_epochs=1'] if 'add_classes' in words[1] else []
        done = subprocess.run(
            [*script, *words[2:], *options], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert 'add_classes' not in words[1] or '| **new classes**' in done.stdout
