"""The config of a training that adds classes to a detector, and the files that it reads."""

import os
import os.path as osp
import re
import zlib
from copy import deepcopy
from math import ceil, prod
from typing import Any, Dict, List, Optional, Sequence, Union

from mmdet.models.dense_heads import ATSSHead, FCOSHead, GFLHead, RTMDetHead
from mmdet.registry import DATASETS, TRANSFORMS
from mmengine.config import Config
from mmengine.logging import MMLogger
from torch import nn

from mmdet_contrast.datasets.coco_file import write_coco_file
from mmdet_contrast.models.dense_heads import YOLOv8Head
from mmdet_contrast.utils.config import (
    CONFIG_KEYS,
    LaunchError,
    config_text,
    dataset_chain,
    load_config,
    type_name,
)
from mmdet_contrast.utils.files import PathLike, replacing
from mmdet_contrast.utils.safe_loading import trust_checkpoints

from .addition_data import AnnotatedPictures, merge_files, names_in
from .addition_teacher import read_teacher

# Weights of the terms of distillation.
CLASS_WEIGHT = 125.0
# In heads with a focal loss, which turns easy locations down, as much would outweigh it.
FOCAL_CLASS_WEIGHT = 10.0
BOX_DISTRIBUTION_WEIGHT = 2.5
BOX_WEIGHT = 1.0
CENTERNESS_WEIGHT = 1.0
FEATURE_WEIGHT = 8.0
# What becomes of the learning rate, and of the limit of the gradient, which the terms of
# distillation add to.
LR_FACTOR = 0.5
CLIP_FACTOR = 3.0
# As many epochs as the config has, or so many where it counts iterations; at most so many, but at
# least so many iterations.
MAX_EPOCHS = 24
MIN_ITERATIONS = 1000
WARM_UP = 100
FINAL_LR = 0.05

# They belong to the training of the detector that is there.
_DROPPED_HOOKS = (
    'BiasWarmupHook',
    'ConstantLRHook',
    'EarlyStoppingHook',
    'FreezeBackboneHook',
    'KNNMonitorHook',
    'PipelineSwitchHook',
    'YOLOXModeSwitchHook',
)
# Keys of the config that the training replaces; variables of its own lines are left out, too.
_REPLACED = re.compile(
    r'model|data_preprocessor|(train|val|test)_.*|load_from|resume|launcher|work_dir|experiment_name'
)
_WORLD_SIZE = dict(pytorch='WORLD_SIZE', slurm='SLURM_NTASKS', mpi='OMPI_COMM_WORLD_SIZE')


def add_classes_config(
    config: Union[PathLike, Config],
    checkpoint: PathLike,
    ann: str,
    img_dir: str,
    classes: Sequence[str],
    val: Optional[str] = None,
    val_img_dir: Optional[str] = None,
    annotated_classes: Sequence[str] = (),
    replay: Optional[str] = None,
    replay_img_dir: Optional[str] = None,
    work_dir: Optional[str] = None,
    cfg_options: Optional[Dict[str, Any]] = None,
    launcher: str = 'none',
    trust_checkpoint: bool = False,
) -> Config:
    """Make the config of a training that adds classes, and the annotation files that it reads.

    The training has as many epochs as the config, those of a ``RepeatDataset`` multiplied, or 24
    where the config counts iterations; at most 24 of them, but at least 1000 iterations.
    Its learning rate is half of the config's, with a warm-up and a cosine.

    The work directory gets ``add_classes.py``, the config, for any program that trains;
    ``detector.py``, the plain config of the detector with all classes; and ``annotations/``.

    Args:
        config (str | PathLike | Config): Config of the detector that is there.
        checkpoint (str | PathLike): Its weights, file or URL.
        ann (str): COCO file of pictures that annotate the new classes.
        img_dir (str): Folder of its pictures.
        classes (Sequence[str]): Names of the new classes.
        val (str, optional): COCO file to evaluate on, of pictures that annotate all classes.
        val_img_dir (str, optional): Folder of its pictures. Defaults to ``img_dir``.
        annotated_classes (Sequence[str]): Old classes all of whose objects ``ann`` annotates, too.
            A picture of ``ann`` may say otherwise for itself, by an entry
            ``annotated_category_ids`` with ids of the classes that it annotates.
        replay (str, optional): COCO file of a few old pictures. They annotate the old classes of
            which the file has a box. A file without boxes is of pictures without annotations.
        replay_img_dir (str, optional): Folder of its pictures. Defaults to ``img_dir``.
        work_dir (str, optional): Folder for everything that is written. Defaults to
            ``./work_dirs/<config name>_<new classes>``, of more than three the first one, the
            number of the others and a checksum.
        cfg_options (dict, optional): Dotted keys of this config and their new values. A
            ``work_dir`` among them is taken where that argument is not given.
        launcher (str): 'none', 'pytorch', 'slurm' or 'mpi'.
        trust_checkpoint (bool): Load checkpoints with objects of any class, which can run any code.

    Returns:
        Config: The config of the training.

    Raises:
        LaunchError: If classes cannot be added to this detector, or not from these pictures.
    """
    source = load_config(config)
    given = source.filename or 'config'
    checkpoint = os.fspath(checkpoint)
    new, annotated = list(classes), list(annotated_classes)
    with trust_checkpoints(trust_checkpoint):
        section, head, old = read_teacher(source, checkpoint)
    check_new_classes(new, annotated, old, ann)
    options = dict(cfg_options or {})
    named_dir = options.pop('work_dir', None)
    work_dir = work_dir or named_dir
    if work_dir is None:
        stem = osp.splitext(osp.basename(given))[0]
        # a file system has a limit
        mark = f'{zlib.crc32(" ".join(new).encode()):08x}'
        names = new if len(new) <= 3 else [new[0], f'and {len(new) - 1} more', mark]
        work_dir = osp.join('work_dirs', re.sub(r'\W+', '_', '_'.join([stem, *names])))
    work_dir = osp.abspath(work_dir)
    # of a link, the folder that it lies in and the one that it leads to
    paths = [each for path in (given, checkpoint) for each in (path, osp.realpath(path))]
    if osp.realpath(work_dir) in [osp.realpath(osp.dirname(path)) for path in paths]:
        raise LaunchError(
            f'work_dir {work_dir!r} holds the detector that is there, which would be overwritten: '
            'give another one (--work-dir).'
        )

    raw = source.to_dict()
    given_data = dataset_chain(raw['train_dataloader']['dataset'])[-1]
    empty = not (given_data.get('filter_cfg') or {}).get('filter_empty_gt', False)
    parts = [AnnotatedPictures(ann, img_dir, new, [*new, *annotated], [*new, *old], empty)]
    if replay is not None:
        boxes = names_in(replay)
        # a class without a box may be one that nobody looked for
        known = [name for name in old if boxes.get(name)]
        if any(boxes.values()) and not known:
            raise LaunchError(
                f'replay file {replay!r} has boxes of {list(boxes)}, and none of the old classes '
                f'{old}: name its categories like these, or empty its list of annotations if the '
                'pictures annotate none of them.'
            )
        parts.append(AnnotatedPictures(replay, replay_img_dir or img_dir, known, known, known))
    everything = [*old, *new]
    merged = merge_files(parts, everything)
    for image in merged.content['images'][:: max(1, len(merged.content['images']) - 1)]:
        if not osp.isfile(image['file_name']):
            raise LaunchError(
                f'image {image["file_name"]!r} does not exist: give the folder of the images of '
                f'{ann!r} (--img-dir), and that of others (--replay-img-dir).'
            )
    if merged.left_out:
        counts = [f'{number} boxes of {name!r}' for name, number in merged.left_out.items()]
        MMLogger.get_current_instance().warning(
            f'{", ".join(counts)} are left out, as not all objects of these old classes are '
            'said to be annotated: name classes that all pictures annotate as annotated_classes.'
        )
    if val is not None:
        boxes = names_in(val)
        if not any(boxes.get(name) for name in old):
            raise LaunchError(
                f'val file {val!r} has no box of an old class, of {old}, but categories '
                f'{list(boxes)}: give pictures that annotate all classes, under these names.'
            )
    # every process writes the same files, before it reads them
    train_file = osp.join(work_dir, 'annotations', 'train.json')
    write_coco_file(train_file, merged.content)
    evaluation = {}
    if val is not None:
        val_file = osp.join(work_dir, 'annotations', 'val.json')
        part = AnnotatedPictures(val, val_img_dir or img_dir, everything)
        write_coco_file(val_file, merge_files([part], everything).content)
        evaluation = _evaluation(raw, val_file, old, everything)

    settings = _settings(raw)
    student = _student_section(section, head, len(everything))
    loader = _train_loader(raw, train_file, everything)
    test_keys = ('test_dataloader', 'test_evaluator', 'test_cfg')
    own_test = {key: deepcopy(raw[key]) for key in test_keys if key in raw}
    if own_test.get('test_dataloader'):
        dataset_chain(own_test['test_dataloader']['dataset'])[-1]['metainfo'] = dict(
            classes=tuple(everything)
        )
    detector = dict(
        deepcopy(settings),
        model=student,
        train_dataloader=deepcopy(loader),
        train_cfg=raw.get('train_cfg'),
        # without new data those that are there, for the pipeline that detects
        **(evaluation or own_test),
        load_from=osp.join(work_dir, 'detector.pth'),
    )
    training = dict(
        settings,
        model=dict(
            type='DistillationDetector',
            student=student,
            teacher=section,
            teacher_checkpoint=checkpoint if '://' in checkpoint else osp.abspath(checkpoint),
            teacher_classes=old,
            student_classes=everything,
            annotated_classes=[*new, *annotated],
            start_from_teacher=True,
            norm_eval=True,
            distillers=distillation_terms(head, 'neck' if section.get('neck') else 'backbone'),
        ),
        train_dataloader=_short_loader(loader, raw, merged.uniform),
        **evaluation,
        load_from=None,
        resume=False,
        work_dir=work_dir,
    )
    cfg = _schedule(training, raw, options, launcher)
    for name, content in (('detector.py', Config(detector)), ('add_classes.py', cfg)):
        with replacing(osp.join(work_dir, name)) as temporary:
            temporary.write_text(config_text(content), encoding='utf-8')
    cfg.launcher = launcher
    return cfg


def distillation_terms(head: nn.Module, features: str = 'neck') -> List[Dict[str, Any]]:
    """List the terms of distillation that keep the old classes in a detector.

    Args:
        head (nn.Module): Its head.
        features (str): Path of the module whose outputs the head gets.

    Returns:
        list[dict]: ``distillers`` of a ``DistillationDetector``.
    """
    kl = dict(type='LogitsKLDivergence')
    weight = CLASS_WEIGHT if isinstance(head, YOLOv8Head) else FOCAL_CLASS_WEIGHT
    terms = [dict(source='bbox_head.cls', loss=kl, weight=weight)]
    if isinstance(head, (YOLOv8Head, GFLHead)):
        bins = head.reg_max + isinstance(head, GFLHead)
        loss = dict(type='BoxDistributionKLLoss', reg_max=bins)
        terms.append(dict(source='bbox_head.reg', loss=loss, weight=BOX_DISTRIBUTION_WEIGHT))
    else:
        loss = dict(type='GIoULoss')
        terms.append(dict(source='bbox_head.boxes', loss=loss, weight=BOX_WEIGHT))
    if isinstance(head, (FCOSHead, ATSSHead)) and not isinstance(head, RTMDetHead):
        terms.append(dict(source='bbox_head.centerness', loss=kl, weight=CENTERNESS_WEIGHT))
    loss = dict(type='ChannelWiseDivergence')
    return [*terms, dict(source=features, loss=loss, weight=FEATURE_WEIGHT)]


def teacher_test_config(cfg: Config) -> Config:
    """Make the config that tests the old detector on the old classes of the validation data.

    Args:
        cfg (Config): What :func:`add_classes_config` made, with ``val``.

    Returns:
        Config: For :func:`mmdet_contrast.apis.test`, with ``model.teacher_checkpoint`` of ``cfg``.
    """
    content = cfg.to_dict()
    old = content['model']['teacher_classes']
    loader, evaluator = content['val_dataloader'], content['val_evaluator']
    loader['dataset']['metainfo'] = dict(classes=tuple(old))
    evaluator['novel_classes'] = []
    kept = ('custom_imports', 'default_scope', 'env_cfg', 'log_level', 'runner_type', 'visualizer')
    return Config(
        dict(
            {key: content[key] for key in kept if key in content},
            model=content['model']['teacher'],
            test_dataloader=loader,
            test_evaluator=evaluator,
            test_cfg=dict(type='TestLoop'),
            experiment_name='before',
        )
    )


def check_new_classes(
    new: Sequence[str], annotated: Sequence[str], old: Sequence[str], ann: str
) -> None:
    """Refuse classes that cannot be added.

    Args:
        new (Sequence[str]): Names of the new classes.
        annotated (Sequence[str]): Old classes that the pictures annotate, too.
        old (Sequence[str]): Classes of the detector that is there; none where they are not known.
        ann (str): COCO file of the new pictures.

    Raises:
        LaunchError: If one is known already, or has no box in the file.
    """
    boxes = names_in(ann)
    known = [name for name in new if name in old]
    if known or not new or len(set(new)) < len(new):
        raise LaunchError(
            f'classes {new}: names of new classes expected, each once, but the detector knows '
            f'{known or old} already.'
        )
    absent = [name for name in [*new, *annotated] if name not in boxes]
    if absent:
        raise LaunchError(
            f'annotation file {ann!r} has no category {absent[0]!r}, but {", ".join(boxes)}: give '
            'names of its categories.'
        )
    empty = [name for name in new if not boxes[name]]
    if empty:
        raise LaunchError(
            f'annotation file {ann!r} has no box of the new classes {empty}: annotate some, or '
            'leave them out.'
        )
    strangers = [name for name in annotated if name not in old]
    if strangers:
        raise LaunchError(
            f'annotated_classes names {strangers}, but old classes are expected, of {old}.'
        )


def _settings(raw: Dict[str, Any]) -> Dict[str, Any]:
    """Take from a config what is neither model nor data."""
    kept = [key for key in raw if key in CONFIG_KEYS and not _REPLACED.fullmatch(key)]
    settings = {key: deepcopy(raw[key]) for key in kept}
    imports = (raw.get('custom_imports') or {}).get('imports') or []
    imports = [imports] if isinstance(imports, str) else list(imports)
    settings['custom_imports'] = dict(
        imports=list(dict.fromkeys([*imports, 'mmdet_contrast'])), allow_failed_imports=False
    )
    settings['default_scope'] = raw.get('default_scope') or 'mmdet'
    settings.setdefault('runner_type', 'mmdet.CheckedRunner')
    return settings


def _student_section(section: Dict[str, Any], head: nn.Module, number: int) -> Dict[str, Any]:
    student = deepcopy(section)
    student['bbox_head']['num_classes'] = number
    if isinstance(head, YOLOv8Head):
        # else the branch of the classes would widen with their number
        width = head.head_module.cls_convs[0][-1].in_channels
        module = student['bbox_head'].get('head_module') or {}
        student['bbox_head']['head_module'] = dict(module, cls_channels=width)
    return student


def _train_loader(raw: Dict[str, Any], ann_file: str, classes: Sequence[str]) -> Dict[str, Any]:
    """Put new data into the place of all data sets of a loader."""
    loader = deepcopy(raw['train_dataloader'])
    *wrappers, dataset = dataset_chain(loader['dataset'])
    loader['dataset'] = _coco_dataset(dataset, ann_file, classes)
    if dataset.get('filter_cfg'):
        loader['dataset']['filter_cfg'] = dataset['filter_cfg']
    for wrapper in reversed(wrappers):
        if type_name(wrapper['type']) == 'MultiImageMixDataset':
            loader['dataset'] = dict(wrapper, dataset=loader['dataset'])
    return loader


def _coco_dataset(like: Dict[str, Any], ann_file: str, classes: Sequence[str]) -> Dict[str, Any]:
    return dict(
        type='CocoDataset',
        ann_file=ann_file,
        data_prefix=dict(img=''),
        metainfo=dict(classes=tuple(classes)),
        pipeline=like['pipeline'],
    )


def _short_loader(loader: Dict[str, Any], raw: Dict[str, Any], uniform: bool) -> Dict[str, Any]:
    """Adapt a loader to a few pictures, which may annotate different classes."""
    dataset = loader['dataset']
    # what is without a box has been left out, where it was to be
    wrapped = dataset_chain(dataset)[-1]
    wrapped['filter_cfg'] = dict(wrapped.get('filter_cfg') or {}, filter_empty_gt=False)
    # the student goes on where the training of the teacher ended
    for hook in raw.get('custom_hooks') or ():
        if type_name(hook['type']) == 'PipelineSwitchHook':
            dataset['pipeline'] = hook['switch_pipeline']
    if not uniform:
        inner = dataset.get('dataset')
        pipeline = [*(inner['pipeline'] if inner else ()), *dataset['pipeline']]
        single = _without_mixing(pipeline)
        if single != pipeline:
            MMLogger.get_current_instance().warning(
                'Transforms that mix pictures are left out: the pictures annotate different '
                'classes, and a mixture of them would annotate neither.'
            )
        loader['dataset'] = dict(inner or dataset, pipeline=single)
    # which classes a picture annotates is found by its path
    loader['dataset']['pipeline'] = [
        dict(step, meta_keys=tuple(dict.fromkeys([*step['meta_keys'], 'img_path'])))
        if 'meta_keys' in step
        else step
        for step in loader['dataset']['pipeline']
    ]
    # some samplers never end an epoch, and an incomplete batch may be all that there is
    loader['sampler'] = dict(type='DefaultSampler', shuffle=True)
    batches = loader.pop('batch_sampler', None)
    if batches and type_name(batches['type']) == 'AspectRatioBatchSampler':
        loader['batch_sampler'] = dict(type='AspectRatioBatchSampler')
    for key in ('drop_last', 'num_batch_per_epoch'):
        loader.pop(key, None)
    return loader


def _without_mixing(pipeline: Sequence[Any]) -> List[Any]:
    """Leave out the transforms that mix pictures, and what only makes sense after them."""
    kept: List[Any] = []
    for step in pipeline:
        if isinstance(step, (list, tuple)):
            step = _without_mixing(step)
        else:
            kind = step.get('type')
            transform = TRANSFORMS.get(kind) if isinstance(kind, str) else kind
            # what MMDetection's MultiImageMixDataset gives other pictures; of a class, hasattr
            # fails where mmcv caches what is drawn
            mixes = 'get_indexes' in dir(transform)
            # the border cuts a picture out of a mosaic
            if mixes or (type_name(kind) == 'RandomAffine' and any(step.get('border') or ())):
                continue
            if 'transforms' in step:
                step = dict(step, transforms=_without_mixing(step['transforms']))
        kept.append(step)
    return kept


def _evaluation(
    raw: Dict[str, Any], ann_file: str, old: Sequence[str], classes: Sequence[str]
) -> Dict[str, Any]:
    """Make loaders and evaluators of validation and test."""
    loader = deepcopy(raw.get('val_dataloader') or raw.get('test_dataloader'))
    if not loader:
        raise LaunchError(
            'the config has no val_dataloader, whose pipeline the evaluation needs: give it one, '
            'or leave out the validation data.'
        )
    dataset = dataset_chain(loader['dataset'])[-1]
    loader['dataset'] = dict(_coco_dataset(dataset, ann_file, classes), test_mode=True)
    evaluator = dict(
        type='BaseNovelCocoMetric', base_classes=list(old), ann_file=ann_file, metric='bbox'
    )
    return dict(
        val_dataloader=loader,
        val_evaluator=evaluator,
        val_cfg=dict(type='ValLoop'),
        test_dataloader=deepcopy(loader),
        test_evaluator=dict(evaluator),
        test_cfg=dict(type='TestLoop'),
    )


def _schedule(
    training: Dict[str, Any], raw: Dict[str, Any], options: Dict[str, Any], launcher: str
) -> Config:
    """Set optimizer, epochs and hooks, around what options say of them."""
    wrapper = training['optim_wrapper']
    if 'lr' in (wrapper.get('optimizer') or {}):
        wrapper['optimizer']['lr'] *= LR_FACTOR
    if 'max_norm' in (wrapper.get('clip_grad') or {}):
        wrapper['clip_grad']['max_norm'] *= CLIP_FACTOR
    training['param_scheduler'] = None
    training['train_cfg'] = dict(type='EpochBasedTrainLoop')
    training['log_processor'] = dict(type='LogProcessor', by_epoch=True, window_size=50)
    hooks = training.get('default_hooks') or {}
    training['default_hooks'] = dict(
        hooks,
        checkpoint=dict(type='CheckpointHook', max_keep_ckpts=1),
        run_check=hooks.get('run_check') or dict(type='RunCheckHook'),
    )
    kept = []
    for hook in training.get('custom_hooks') or ():
        kind = type_name(hook.get('type'))
        if kind == 'EMAHook':
            # MMEngine's default would still be the teacher, more or less, when the training ends
            hook = dict(dict(ema_type='ExpMomentumEMA'), **hook)
        if kind not in _DROPPED_HOOKS:
            kept.append(hook)
    training['custom_hooks'] = [*kept, dict(type='DistillationHook')]
    # named, it would be the one of the evaluation of the teacher, and log into its folder
    (training.get('visualizer') or {}).pop('name', None)
    cfg = load_config(Config(training), cfg_options=options)

    constructor = type_name(cfg.optim_wrapper.get('constructor'))
    if constructor == 'LearningRateDecayOptimizerConstructor':
        raise LaunchError(
            f'optim_wrapper.constructor is {constructor}, which needs a plain detector, and a '
            'student beside its teacher is none: add --cfg-options '
            'optim_wrapper.constructor=DefaultOptimWrapperConstructor.'
        )

    loader = cfg.train_dataloader
    dataset = dataset_chain(loader.dataset)[-1]
    size = len(DATASETS.build(dict(dataset, pipeline=[], serialize_data=False)))
    processes = int(os.environ.get(_WORLD_SIZE.get(launcher, ''), 1))
    steps = ceil(size / (loader.batch_size * processes))
    if steps == 0:
        raise LaunchError(
            'filter_cfg of train_dataloader leaves no picture: change it, or give pictures that '
            'are large enough.'
        )
    wrappers = dataset_chain(raw['train_dataloader']['dataset'])
    # an epoch of the config goes through a repeated data set so many times
    times = prod(each['times'] for each in wrappers if type_name(each['type']) == 'RepeatDataset')
    own = times * ((raw.get('train_cfg') or {}).get('max_epochs') or MAX_EPOCHS)
    loop = cfg.train_cfg
    loop.setdefault('max_epochs', max(min(own, MAX_EPOCHS), ceil(MIN_ITERATIONS / steps)))
    if cfg.get('val_dataloader'):
        loop.setdefault('val_interval', loop.max_epochs)
    cfg.default_hooks.checkpoint.setdefault('interval', max(1, loop.max_epochs // 10))
    if cfg.param_scheduler is None:
        warm_up = max(1, min(WARM_UP, loop.max_epochs * steps // 10))
        cosine = dict(
            type='CosineAnnealingLR',
            T_max=loop.max_epochs,
            eta_min_ratio=FINAL_LR,
            by_epoch=True,
            convert_to_iter_based=True,
        )
        cfg.param_scheduler = [
            dict(type='LinearLR', start_factor=0.01, by_epoch=False, end=warm_up),
            cosine,
        ]
    return cfg
