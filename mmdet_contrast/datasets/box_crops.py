"""The objects of a detection data set, cut out, as images with a class."""

from typing import Any, Dict, List, Union

import numpy as np
from mmdet.registry import DATASETS
from mmengine.dataset import BaseDataset

from mmdet_contrast.utils.checkpoint import class_lists

from .transforms.load_unlabelled_image import LoadUnlabelledImage


@DATASETS.register_module()
class BoxCrops(BaseDataset):
    """Every annotated box of a detection data set as an image of its own.

    For linear evaluation of a backbone on the objects of one's own data. Crowd, difficult and
    ignored boxes are left out. The pipeline begins with ``LoadImageFromNDArray`` and ends in
    ``PackDetInputs(meta_keys=(..., 'gt_label'))``: samples carry their class as metainfo.

    Args:
        dataset (dict | BaseDataset): The detection data set, also in wrappers (``RepeatDataset``,
            ``ConcatDataset`` …); its pipeline is not used.
        context (float): Part of the box's width and height that is added on each side, clipped to
            the image. Defaults to 0.
        **kwargs: As in MMEngine's ``BaseDataset``: ``pipeline``, ``indices``, ``lazy_init`` …

    Examples:
        >>> crops = BoxCrops(
        ...     dataset=dict(type='CocoDataset', ann_file='train.json', data_prefix=dict(img='a/')),
        ...     pipeline=[
        ...         dict(type='LoadImageFromNDArray'),
        ...         dict(type='Resize', scale=(64, 64), keep_ratio=False),
        ...         dict(type='PackDetInputs', meta_keys=('img_id', 'img_shape', 'gt_label')),
        ...     ],
        ... )
    """

    whole_images = True

    def __init__(
        self, dataset: Union[Dict[str, Any], BaseDataset], context: float = 0.0, **kwargs: Any
    ) -> None:
        if isinstance(dataset, dict):
            dataset = DATASETS.build(_without_pipeline(dataset))
        self.dataset = dataset
        self.context = context
        self._load = LoadUnlabelledImage()
        super().__init__(**kwargs)

    def load_data_list(self) -> List[dict]:
        """List the boxes.

        Returns:
            list[dict]: ``img_path``, ``img_id`` (of the crop), ``crop`` (x1, y1, x2, y2 in pixels)
            and ``gt_label`` of each box.

        Raises:
            ValueError: If there is no box, or concatenated data sets have different classes.
        """
        self.dataset.full_init()
        classes = class_lists(self.dataset)
        if len(set(map(tuple, classes))) != 1:
            raise ValueError(
                f'BoxCrops got data sets with the classes {classes}, expected one list, in which '
                'labels are positions: set metainfo=dict(classes=(...)) in all of them.'
            )
        self._metainfo['classes'] = tuple(classes[0])
        crops = []
        for index in range(len(self.dataset)):
            info = self.dataset.get_data_info(index)
            for instance in info['instances']:
                if not instance['ignore_flag']:
                    crops.append(
                        dict(
                            img_path=info['img_path'],
                            img_id=len(crops),
                            crop=list(instance['bbox']),
                            gt_label=instance['bbox_label'],
                        )
                    )
        if not crops:
            raise ValueError(
                f'BoxCrops got {len(self.dataset)} images without a box (ignored ones do not '
                'count): check ann_file and metainfo.classes of its dataset.'
            )
        return crops

    def prepare_data(self, idx: int) -> Any:
        """Cut a box out and run the pipeline.

        Args:
            idx (int): Index of the box.

        Returns:
            Any: What the pipeline gives.
        """
        info = self.get_data_info(idx)
        image = self._load(dict(img_path=info['img_path']))['img']
        x1, y1, x2, y2 = info.pop('crop')
        x_more, y_more = (x2 - x1) * self.context, (y2 - y1) * self.context
        height, width = image.shape[:2]
        # a box narrower than a pixel, or outside of the image, still shows the pixel next to it
        left = int(np.clip(np.floor(x1 - x_more), 0, width - 1))
        top = int(np.clip(np.floor(y1 - y_more), 0, height - 1))
        right = int(np.clip(np.ceil(x2 + x_more), left + 1, width))
        bottom = int(np.clip(np.ceil(y2 + y_more), top + 1, height))
        return self.pipeline(dict(info, img=image[top:bottom, left:right].copy()))


def _without_pipeline(cfg: Any) -> Any:
    """Return the config of a data set that only lists its images; wrappers have no pipeline."""
    if 'datasets' in cfg:
        return dict(cfg, datasets=[_without_pipeline(part) for part in cfg['datasets']])
    if 'dataset' in cfg:
        return dict(cfg, dataset=_without_pipeline(cfg['dataset']))
    return dict(cfg, pipeline=[])
