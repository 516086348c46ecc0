"""A detection data set in tar shards, of which a process holds the table of contents only."""

import functools
import json
import os.path as osp
from typing import Any, Dict, FrozenSet, List, Optional, Sequence, Tuple

import numpy as np
from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS
from mmengine.dataset import force_full_init

from mmdet_contrast.utils.config import LaunchError

from .shard_backend import image_address, read_part

INDEX_FILE = 'index.json'
_COLUMNS = ('image_offset', 'image_size', 'json_offset', 'json_size')


@DATASETS.register_module()
class ShardDataset(CocoDataset):
    """What ``tools/dataset_converters/coco_to_shards.py`` writes, for data of any size.

    Samples are those of ``CocoDataset``, so that all pipelines work as they are. Annotations stay
    on the disk, beside their images in WebDataset's tar files, and are read when their image is. A
    process holds the number of samples of each shard, and where the images of the last 16 shards
    lie: its memory does not grow with the number of images.

    Use it with ``sampler=dict(type='ShardSampler')``, which reads shard by shard. Other samplers,
    and wrappers (``ConcatDataset``, mosaic in ``MultiImageMixDataset`` …) work as well, but read
    from all shards at random. The folder has to be mounted: shards are not read over a network
    protocol.

    Args:
        data_root (str): The folder of the shards.
        metainfo (dict, optional): ``classes``: names of categories; labels are positions in this
            list. Defaults to all categories in the order of the annotation file.
        filter_cfg (dict, optional): As in ``CocoDataset``: ``filter_empty_gt`` leaves out images
            without annotations of the classes, ``min_size`` those with a shorter side, in pixels.
        pipeline (Sequence[dict]): The transforms.
        test_mode (bool): Whether the data are evaluated: nothing is filtered.
        lazy_init (bool): Whether not to read the index yet.

    Attributes:
        shard_sizes (ndarray): Number of samples of each shard, without those filtered out.

    Raises:
        LaunchError: If the folder has no index, a class is not in it, no sample is left, or data
            that are evaluated have classes in another order than the annotation file, in which
            COCO's metrics number them.

    Examples:
        >>> train_dataloader = dict(
        ...     batch_size=16,
        ...     num_workers=8,
        ...     sampler=dict(type='ShardSampler'),
        ...     dataset=dict(
        ...         type='ShardDataset', data_root='data/coco_shards/train', pipeline=train_pipeline
        ...     ),
        ... )
    """

    METAINFO: Dict[str, Any] = {}

    def __init__(
        self,
        data_root: str,
        metainfo: Optional[Dict[str, Any]] = None,
        filter_cfg: Optional[Dict[str, Any]] = None,
        pipeline: Sequence[Any] = (),
        test_mode: bool = False,
        lazy_init: bool = False,
    ) -> None:
        super().__init__(
            data_root=data_root,
            data_prefix=dict(img=''),
            metainfo=metainfo,
            filter_cfg=filter_cfg,
            pipeline=list(pipeline),
            test_mode=test_mode,
            serialize_data=False,
            lazy_init=lazy_init,
        )

    def full_init(self) -> None:
        """Read the index; with ``filter_cfg`` also the table of contents of each shard, once."""
        if self._fully_initialized:
            return
        path = osp.join(self.data_root, INDEX_FILE)
        if not osp.isfile(path):
            raise LaunchError(
                f'data_root={self.data_root!r} has no {INDEX_FILE}: give a folder that '
                'tools/dataset_converters/coco_to_shards.py has written to the end.'
            )
        with open(path, encoding='utf-8') as file:
            index = json.load(file)
        self._set_classes({entry['name']: entry['id'] for entry in index['categories']}, path)
        self._shards = [osp.join(self.data_root, shard['file']) for shard in index['shards']]
        self._rule: Tuple[Optional[FrozenSet[int]], int] = (None, 0)
        sizes = [shard['samples'] for shard in index['shards']]
        if self.filter_cfg and not self.test_mode:
            filtered = self.filter_cfg.get('filter_empty_gt', False)
            self._rule = (
                frozenset(self.cat_ids) if filtered else None,
                self.filter_cfg.get('min_size', 0),
            )
            sizes = [len(_read_table(shard, *self._rule)) for shard in self._shards]
        if not sum(sizes):
            raise LaunchError(
                f'no image of {path!r} is left: check filter_cfg={self.filter_cfg} and metainfo.'
            )
        self.shard_sizes = np.array(sizes)
        self._ends = self.shard_sizes.cumsum()
        self._fully_initialized = True

    def _set_classes(self, ids: Dict[str, int], path: str) -> None:
        classes = tuple(self._metainfo.get('classes') or ids)
        missing = [name for name in classes if name not in ids]
        if missing:
            raise LaunchError(
                f'metainfo has the classes {missing}, which {path!r} does not have among '
                f'{list(ids)}: give metainfo=dict(classes=...) names of the index.'
            )
        if self.test_mode and list(classes) != [name for name in ids if name in classes]:
            raise LaunchError(
                f'metainfo has the classes {list(classes)}, but metrics number them in the order '
                f'of {path!r}, {list(ids)}: give metainfo=dict(classes=...) the same order.'
            )
        self._metainfo['classes'] = classes
        self.cat_ids: List[int] = [ids[name] for name in classes]
        self.cat2label = {key: label for label, key in enumerate(self.cat_ids)}

    @force_full_init
    def __len__(self) -> int:
        return int(self._ends[-1])

    @force_full_init
    def get_data_info(self, idx: int) -> Dict[str, Any]:
        """Read the annotations of a sample.

        Args:
            idx (int): Index of the sample.

        Returns:
            dict: As ``CocoDataset`` has it, with an ``img_path`` that leads into the shard.
        """
        idx = range(len(self))[idx]
        number = int(np.searchsorted(self._ends, idx, side='right'))
        shard = self._shards[number]
        row = idx - int(self._ends[number] - self.shard_sizes[number])
        image_offset, image_size, json_offset, json_size = map(
            int, _read_table(shard, *self._rule)[row]
        )
        content = json.loads(read_part(shard, json_offset, json_size))
        image = content['image']
        info = self.parse_data_info(
            dict(raw_img_info=dict(image, img_id=image['id']), raw_ann_info=content['annotations'])
        )
        address = image_address(shard, image_offset, image_size, image['file_name'])
        return dict(info, img_path=address, sample_idx=idx)


def contents_of(shard: str) -> str:
    """Name the file that tells what a shard holds.

    Args:
        shard (str): Path of the tar file.

    Returns:
        str: Path of the JSON file beside it.
    """
    return osp.splitext(shard)[0] + '.json'


# As many as two groups of ShardSampler; module level, because data sets travel to workers.
@functools.lru_cache(maxsize=16)
def _read_table(shard: str, categories: Optional[FrozenSet[int]], min_size: int) -> np.ndarray:
    """Read where the samples of a shard lie, without those that are filtered out."""
    with open(contents_of(shard), encoding='utf-8') as file:
        contents = json.load(file)
    table = np.array([contents[name] for name in _COLUMNS], dtype=np.int64).T
    kept = np.minimum(contents['width'], contents['height']) >= min_size
    if categories is not None:
        kept &= [not categories.isdisjoint(shown) for shown in contents['categories']]
    return table[kept]
