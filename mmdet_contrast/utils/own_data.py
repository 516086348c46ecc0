"""One's own data in a shipped config."""

import os
import os.path as osp
from typing import Any, Dict, Mapping, Optional, Sequence, Union

from mmdet_contrast.utils.config import LaunchError, type_name


def own_data(
    base: Mapping[str, Any],
    data_root: Union[str, 'os.PathLike[str]'],
    classes: Union[str, Sequence[str]],
    old_classes: Optional[Sequence[str]] = None,
    train: str = 'annotations/train.json',
    val: str = 'annotations/val.json',
    test: str = 'annotations/test.json',
    images: Union[str, Mapping[str, str]] = 'JPEGImages/',
) -> Dict[str, Any]:
    """Give the settings that put one's own COCO data in the place of a config's data.

    They are ``data_root``, ``metainfo``, the three loaders, the two evaluators and ``model``, with
    the number of classes. A config adds them to itself with ``locals().update``; lines after that
    may change them further, as in ``train_dataloader['batch_size'] = 8``.

    Args:
        base (Mapping[str, Any]): What the config inherits: its ``_base_``. A single-stage detector,
            with or without contrast, or a ``DistillationDetector`` of such.
        data_root (str | PathLike): Folder that the following paths are relative to.
        classes (str | Sequence[str]): Names of the classes, in the order in which the annotation
            files have them. To add classes: all of them, the old ones, too.
        old_classes (Sequence[str], optional): Classes that the teacher knows. Only where the base
            adds classes. If the base names ``annotated_classes``, they become the new ones.
        train (str): COCO JSON of the training.
        val (str): That of the validation.
        test (str): That of the test; the file of the validation where there is no other.
        images (str | Mapping[str, str]): Folder of the images, or one each for the keys 'train',
            'val' and 'test'.

    Returns:
        dict[str, Any]: The top-level settings, with no more in each than what changes.

    Raises:
        LaunchError: If the base adds classes, and ``old_classes`` is not given.

    Example:
        A config; ``import`` would make a lazy config of it::

            _base_ = __import__('mmdet_contrast').config_path('retina_contrast_bccd.py')
            locals().update(
                __import__('mmdet_contrast').own_data(_base_, 'data/parts', ('bolt', 'nut'))
            )
    """
    root = osp.join(os.fspath(data_root), '')
    classes = (classes,) if isinstance(classes, str) else tuple(classes)
    metainfo = dict(classes=classes)
    settings: Dict[str, Any] = dict(data_root=root, metainfo=metainfo)
    for split, ann_file in dict(train=train, val=val, test=test).items():
        folder = images if isinstance(images, str) else images[split]
        settings[f'{split}_dataloader'] = dict(
            dataset=dict(
                data_root=root,
                metainfo=dict(metainfo),
                ann_file=ann_file,
                data_prefix=dict(img=folder),
            )
        )
        if split != 'train':
            settings[f'{split}_evaluator'] = dict(ann_file=osp.join(root, ann_file))

    model = base['model']
    distils = type_name(model['type']) == 'DistillationDetector'
    compares = [
        split
        for split in ('val', 'test')
        if type_name(base[f'{split}_evaluator']['type']) == 'BaseNovelCocoMetric'
    ]
    if (distils or compares) and not old_classes:
        raise LaunchError(
            'own_data: the base adds classes: give old_classes, the classes that the teacher knows.'
        )
    for split in compares:
        settings[f'{split}_evaluator']['base_classes'] = tuple(old_classes)
    if distils:
        settings['model'] = dict(
            student=dict(bbox_head=dict(num_classes=len(classes))),
            teacher=dict(bbox_head=dict(num_classes=len(old_classes))),
        )
        if model.get('annotated_classes'):
            new = tuple(name for name in classes if name not in old_classes)
            settings['model']['annotated_classes'] = new
    else:
        settings['model'] = dict(bbox_head=dict(num_classes=len(classes)))
    return settings
