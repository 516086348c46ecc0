"""One's own data in a shipped config."""

import os
import os.path as osp
from typing import Any, Dict, Mapping, Sequence, Union


def own_data(
    data_root: Union[str, 'os.PathLike[str]'],
    classes: Union[str, Sequence[str]],
    train: str = 'annotations/train.json',
    val: str = 'annotations/val.json',
    test: str = 'annotations/test.json',
    images: Union[str, Mapping[str, str]] = 'JPEGImages/',
) -> Dict[str, Any]:
    """Give the settings that put one's own COCO data in the place of a single-stage detector's.

    They are ``data_root``, ``metainfo``, the three loaders, the two evaluators and ``model``, with
    the number of classes. A config adds them to itself with ``locals().update``; lines after that
    may change them further, as in ``train_dataloader['batch_size'] = 8``.

    Args:
        data_root (str | PathLike): Folder that the following paths are relative to.
        classes (str | Sequence[str]): Names of the classes, in the order in which the annotation
            files have them.
        train (str): COCO JSON of the training.
        val (str): That of the validation.
        test (str): That of the test; the file of the validation where there is no other.
        images (str | Mapping[str, str]): Folder of the images, or one each for the keys 'train',
            'val' and 'test'.

    Returns:
        dict[str, Any]: The top-level settings, with no more in each than what changes.

    Example:
        A config; ``import`` would make a lazy config of it::

            _base_ = __import__('mmdet_contrast').config_path('retina_contrast_bccd.py')
            locals().update(
                __import__('mmdet_contrast').own_data('data/parts', ('bolt', 'nut'))
            )
    """
    root = osp.join(os.fspath(data_root), '')
    classes = (classes,) if isinstance(classes, str) else tuple(classes)
    metainfo = dict(classes=classes)
    model = dict(bbox_head=dict(num_classes=len(classes)))
    settings: Dict[str, Any] = dict(data_root=root, metainfo=metainfo, model=model)
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
    return settings
