"""Images of a folder, without annotations."""

import os.path as osp
from pathlib import PurePath
from typing import Any, List

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

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If no image is below it, or annotations are given.

    Examples:
        >>> dataset = ImageFolderDataset(data_root='photos', pipeline=[])
        >>> dataset[0]['img_path']
        'photos/2024/a.jpg'
    """

    def __init__(self, data_root: str, **kwargs: Any) -> None:
        if kwargs.get('ann_file'):
            raise ValueError(
                f'ImageFolderDataset(ann_file={kwargs["ann_file"]!r}) given, a folder of images '
                "without annotations expected: leave ann_file out, or use type='CocoDataset'."
            )
        super().__init__(data_root=data_root, **kwargs)

    def load_data_list(self) -> List[dict]:
        """List the images.

        Returns:
            list[dict]: ``img_path`` and ``img_id``, the position in the list, of each image.

        Raises:
            FileNotFoundError: If there is no such folder.
            ValueError: If no image is below it.
        """
        if not osp.isdir(self.data_root):
            raise FileNotFoundError(
                f'image folder {self.data_root!r} does not exist (looked from '
                f'{osp.abspath(osp.curdir)!r}): set data_root to a folder of images.'
            )
        found = scandir(self.data_root, IMG_EXTENSIONS, True, case_sensitive=False)
        # MMEngine leaves out hidden files, and takes what lies in hidden folders
        paths = sorted(
            path for path in found if not any(part[0] == '.' for part in PurePath(path).parts)
        )
        if not paths:
            raise ValueError(
                f'no image is in folder {self.data_root!r} or below it (looked for '
                f'{", ".join(IMG_EXTENSIONS)}, not in hidden folders): set data_root to a folder '
                'of images.'
            )
        return [
            dict(img_path=osp.join(self.data_root, path), img_id=i) for i, path in enumerate(paths)
        ]
