"""Images of a folder, without annotations or in one sub-folder for each class."""

import os.path as osp
from pathlib import PurePath
from typing import List

from mmdet.registry import DATASETS
from mmdet.utils.misc import IMG_EXTENSIONS
from mmengine.dataset import BaseDataset
from mmengine.utils import scandir


@DATASETS.register_module()
class ImageFolderDataset(BaseDataset):
    """Every image below a folder, for pre-training without annotations.

    Subfolders are searched, the case of the file name's ending does not matter, hidden files and
    what lies in hidden folders (``.thumbnails``, ``.ipynb_checkpoints``) are left out, and the
    images come in the order of their paths, on every machine. For the images that a COCO file
    names use MMDetection's ``CocoDataset``; neither reads annotations unless the pipeline has
    ``LoadAnnotations``.

    Args:
        data_root (str): The folder.
        **kwargs: As in MMEngine's ``BaseDataset``: ``pipeline``, ``indices``, ``lazy_init`` …

    Examples:
        >>> dataset = ImageFolderDataset(data_root='photos', pipeline=[])
        >>> dataset[0]['img_path']
        'photos/2024/a.jpg'
    """

    def load_data_list(self) -> List[dict]:
        """List the images.

        Returns:
            list[dict]: ``img_path`` and ``img_id``, the position in the list, of each image.

        Raises:
            FileNotFoundError: If there is no such folder.
            ValueError: If no image is below it.
        """
        found = scandir(self.data_root, IMG_EXTENSIONS, True, case_sensitive=False)
        # MMEngine leaves out hidden files, and takes what lies in hidden folders
        paths = sorted(
            path for path in found if not any(part[0] == '.' for part in PurePath(path).parts)
        )
        if not paths:
            raise ValueError(
                f'data_root={self.data_root!r} has no image ({", ".join(IMG_EXTENSIONS)}) in it or '
                'below it, hidden folders aside.'
            )
        return [
            dict(img_path=osp.join(self.data_root, path), img_id=i) for i, path in enumerate(paths)
        ]


@DATASETS.register_module()
class LabelledImageFolder(ImageFolderDataset):
    """Images whose class is the sub-folder they lie in, for kNN and linear evaluation.

    ``data_root/cat/a.jpg`` and ``data_root/cat/2024/b.jpg`` are of the class ``cat``. The classes
    are the sub-folders, without hidden ones, in alphabetical order, unless
    ``metainfo=dict(classes=...)`` gives their order; then each has to be one of them.

    The pipeline ends in ``PackDetInputs(meta_keys=(..., 'gt_label'))``: samples carry their class
    as metainfo.

    Args:
        data_root (str): The folder of the classes' folders.
        **kwargs: As in ``ImageFolderDataset``.

    Examples:
        >>> dataset = LabelledImageFolder(data_root='cells', pipeline=[])
        >>> dataset.metainfo['classes']
        ('Platelets', 'RBC', 'WBC')
    """

    # samples are images with a label, not boxes
    whole_images = True

    def load_data_list(self) -> List[dict]:
        """List the images with their classes.

        Returns:
            list[dict]: ``img_path``, ``img_id`` and ``gt_label`` (class index) of each image.

        Raises:
            FileNotFoundError: If there is no such folder.
            ValueError: If there is no image, or one lies in the folder of no class.
        """
        infos = super().load_data_list()
        folders = [osp.relpath(osp.dirname(info['img_path']), self.data_root) for info in infos]
        names = [folder.split(osp.sep)[0] for folder in folders]
        classes = tuple(self._metainfo.get('classes') or sorted(set(names) - {osp.curdir}))
        unknown = sorted(set(names) - set(classes))
        if unknown:
            raise ValueError(
                f'data_root={self.data_root!r} has images in {unknown}, expected the folders of '
                f'the classes {list(classes)}: move them, or set metainfo.classes.'
            )
        self._metainfo['classes'] = classes
        for info, name in zip(infos, names):
            info['gt_label'] = classes.index(name)
        return infos
