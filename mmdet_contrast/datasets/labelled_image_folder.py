"""Images in one folder for each class."""

import os.path as osp
from typing import List

from mmdet.registry import DATASETS

from .image_folder_dataset import ImageFolderDataset


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

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If there is no image, one lies in no class's folder, or a folder is no class.

    Examples:
        >>> dataset = LabelledImageFolder(data_root='cells', pipeline=[])
        >>> dataset.metainfo['classes']
        ('Platelets', 'RBC', 'WBC')
    """

    # what `labelled_samples` goes by: samples are images with a label, not boxes
    whole_images = True

    def load_data_list(self) -> List[dict]:
        """List the images with their classes.

        Returns:
            list[dict]: ``img_path``, ``img_id`` and ``gt_label`` (class index) of each image.

        Raises:
            FileNotFoundError: If there is no such folder.
            ValueError: If there is no image, one lies in no class's folder, or a folder is no
                class.
        """
        infos = super().load_data_list()
        parts = [osp.relpath(info['img_path'], self.data_root).split(osp.sep) for info in infos]
        loose = [osp.join(*part) for part in parts if len(part) == 1]
        if loose:
            raise ValueError(
                f'{len(loose)} images lie in {self.data_root!r} itself ({loose[0]!r} is one), not '
                'in the folder of a class: put the images of each class in a sub-folder.'
            )
        found = sorted({part[0] for part in parts})
        classes = tuple(self._metainfo.get('classes') or found)
        unknown = [name for name in found if name not in classes]
        if unknown:
            raise ValueError(
                f'{self.data_root!r} has the folders {unknown}, which are none of the classes '
                f'{list(classes)}: correct metainfo.classes, or take the folders away.'
            )
        self._metainfo['classes'] = classes
        for info, part in zip(infos, parts):
            info['gt_label'] = classes.index(part[0])
        return infos
