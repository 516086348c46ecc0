"""The data sets that a config describes, before they are built."""

import os.path as osp
from typing import Any, Dict, Iterator, NamedTuple, Sequence, Tuple

from mmcv.transforms import LoadAnnotations, LoadImageFromFile
from mmdet.datasets import CocoDataset
from mmengine.dataset import BaseDataset
from mmengine.fileio import LocalBackend, get_file_backend, join_path, list_from_file
from mmengine.registry import DATASETS, TRANSFORMS
from mmengine.utils import is_abs

from .registered import find_type


class DataPart(NamedTuple):
    """A data set of a config, without the wrappers around it.

    Attributes:
        where (str): Its place in the config, or its loader if that has no other data set.
        cfg (dict): Its config, not a copy.
        kind (type): Its class.
        pipeline (tuple[dict]): Its transforms, and those of the wrappers.
        cut_out (bool): Whether a wrapper reads its images and boxes without its pipeline.
    """

    where: str
    cfg: Dict[str, Any]
    kind: Any
    pipeline: Tuple[Any, ...]
    cut_out: bool

    @property
    def classes(self) -> Any:
        """Any: The names that ``metainfo`` or the class gives; () where there are none."""
        given = (self.cfg.get('metainfo') or {}).get('classes')
        if isinstance(given, str) and osp.isfile(given):
            given = list_from_file(given)
        given = (self.kind.METAINFO.get('classes') or ()) if given is None else given
        return given if isinstance(given, str) else tuple(given)

    @property
    def path(self) -> str:
        """str: Its annotation file, if it is read as ``CocoDataset`` reads it, else ''.

        Training without boxes, which takes the images alone, has none: it may lack annotations.
        """
        file = self.cfg.get('ann_file') if reads_coco(self.kind) else None
        boxes = self.cut_out or any(_is_a(step, LoadAnnotations) for step in self.pipeline)
        used = boxes or not self.where.startswith('train')
        return self._below_root(file) if file and used else ''

    def image_paths(self, names: Sequence[str]) -> Sequence[str]:
        """Give the paths of images that are read from the local disk.

        Args:
            names (Sequence[str]): Their names in the annotation file.

        Returns:
            Sequence[str]: The paths; nothing if images come from elsewhere.
        """
        prefix = self._below_root((self.cfg.get('data_prefix') or {}).get('img', ''))
        paths = [osp.join(prefix, name) for name in names]
        loaders = [step for step in self.pipeline if _is_a(step, LoadImageFromFile)]
        if not paths or not (loaders or self.cut_out):
            return []
        backend = get_file_backend(
            paths[0], backend_args=loaders[0].get('backend_args') if loaders else None
        )
        return paths if isinstance(backend, LocalBackend) else []

    def _below_root(self, path: str) -> str:
        # as BaseDataset joins them
        root = self.cfg.get('data_root')
        return path if is_abs(path) or not root else join_path(root, path)


def reads_coco(kind: Any) -> bool:
    """Tell whether a data set reads annotation files with the code of ``CocoDataset``.

    Args:
        kind (type): Its class.

    Returns:
        bool: Whether it does. LVIS, Objects365 or panoptic files have other rules.
    """
    return (
        isinstance(kind, type)
        and issubclass(kind, CocoDataset)
        and kind.load_data_list is CocoDataset.load_data_list
        and kind.parse_data_info is CocoDataset.parse_data_info
    )


def data_parts(
    cfg: Any, where: str, after: Tuple[Any, ...] = (), cut_out: bool = False
) -> Iterator[DataPart]:
    """Yield the data sets in the config of a loader or data set; what is built already is left out.

    Args:
        cfg (Any): Config of a data loader, or of a data set.
        where (str): Its place in the config.
        after (tuple[dict]): Transforms of the wrappers around it.
        cut_out (bool): Whether a wrapper around it does not use its pipeline.

    Yields:
        DataPart: Each data set within, wrappers aside.
    """
    if not isinstance(cfg, dict):
        return
    kind = find_type(DATASETS, cfg.get('type'))
    pipeline = (*(cfg.get('pipeline') or ()), *after)
    inner = {f'{where}.dataset': cfg['dataset']} if 'dataset' in cfg else {}
    for i, part in enumerate(cfg.get('datasets') or ()):
        inner[f'{where}.datasets[{i}]'] = part
    for place, part in inner.items():
        yield from data_parts(part, place, pipeline, getattr(kind, 'whole_images', cut_out))
    if not inner and isinstance(kind, type) and issubclass(kind, BaseDataset):
        # the loader tells enough where it has one data set
        where = where if '[' in where else where.split('.')[0]
        yield DataPart(where, cfg, kind, () if cut_out else pipeline, cut_out)


def _is_a(step: Any, kind: type) -> bool:
    found = find_type(TRANSFORMS, step.get('type')) if isinstance(step, dict) else type(step)
    return isinstance(found, type) and issubclass(found, kind)
