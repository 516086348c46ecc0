"""The head of YOLOv8."""

from math import log
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

import torch
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.task_modules.prior_generators import MlvlPointGenerator
from mmdet.models.utils import filter_scores_and_topk
from mmdet.registry import MODELS, TASK_UTILS
from mmdet.structures.bbox import distance2bbox, get_box_tensor
from mmdet.utils import ConfigType, InstanceList, OptInstanceList
from mmengine.config import ConfigDict
from mmengine.dist import get_world_size
from mmengine.model import BaseModule, ModuleList, Sequential
from mmengine.structures import InstanceData
from torch import Tensor, nn

from ..layers.yolov8 import INIT_CFG, NORM_CFG, conv, scale_channels


@MODELS.register_module()
class YOLOv8HeadModule(BaseModule):
    """Two branches of convolutions for each level: classes, and distributions of the sides.

    Args:
        num_classes (int): Number of classes.
        in_channels (Sequence[int]): Channels of each level.
        strides (Sequence[int]): Stride of each level in pixels.
        reg_max (int): Bins of the distribution of a side's distance.
        cls_channels (int, optional): Channels of the classes' branch. Defaults to YOLOv8's, those
            of the first level or the number of classes (at most 100), whichever is larger; only
            where it is equal do detectors of different classes share the weights of that branch.
        norm_cfg (dict): Normalisation of the convolutions.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: Sequence[int],
        strides: Sequence[int] = (8, 16, 32),
        reg_max: int = 16,
        cls_channels: Optional[int] = None,
        norm_cfg: dict = NORM_CFG,
    ) -> None:
        super().__init__(init_cfg=INIT_CFG)
        self.num_classes = num_classes
        self.strides = tuple(strides)
        reg_channels = max(16, in_channels[0] // 4, 4 * reg_max)
        cls_channels = cls_channels or max(in_channels[0], min(num_classes, 100))

        def branch(channels: int, width: int, out: int) -> Sequential:
            return Sequential(
                conv(channels, width, 3, norm_cfg),
                conv(width, width, 3, norm_cfg),
                nn.Conv2d(width, out, 1),
            )

        self.reg_convs = ModuleList(branch(c, reg_channels, 4 * reg_max) for c in in_channels)
        self.cls_convs = ModuleList(branch(c, cls_channels, num_classes) for c in in_channels)

    def init_weights(self) -> None:
        """Initialise; the biases expect about five objects in a picture of 640 x 640 pixels."""
        super().init_weights()
        for reg, cls, stride in zip(self.reg_convs, self.cls_convs, self.strides):
            nn.init.constant_(reg[-1].bias, 1.0)
            nn.init.constant_(cls[-1].bias, log(5 / self.num_classes / (640 / stride) ** 2))

    def forward(self, x: Sequence[Tensor]) -> Tuple[List[Tensor], List[Tensor]]:
        """Compute the raw maps, in training and in eval mode alike.

        Args:
            x (Sequence[Tensor]): (N, C_l, H_l, W_l) features of each level.

        Returns:
            tuple[list[Tensor], list[Tensor]]: (N, num_classes, H_l, W_l) logits of the classes
            and (N, 4 * reg_max, H_l, W_l) logits of the sides' bins (left, top, right, bottom).
        """
        return (
            [convs(feat) for convs, feat in zip(self.cls_convs, x)],
            [convs(feat) for convs, feat in zip(self.reg_convs, x)],
        )


class _Objects(NamedTuple):
    """The G objects of all images of a batch."""

    bboxes: Tensor  # (G, 4) in pixels
    labels: Tensor  # (G,)
    images: Tensor  # (G,)


@MODELS.register_module()
class YOLOv8Head(BaseDenseHead):
    """Anchor-free head with decoupled branches and distributions of the sides, as in YOLOv8.

    The layers are a module of their own, ``head_module``; targets, losses and decoding are here.
    ``forward`` gives the raw maps in training and in eval mode.

    The losses are divided by the sum of the target scores (at least 1).

    Args:
        num_classes (int): Number of classes.
        in_channels (Sequence[int]): Channels of each level at width 1.
        widen_factor (float): Factor of the channels; 1 takes them as they are.
        strides (Sequence[int]): Stride of each level in pixels.
        reg_max (int): Bins of the distribution of a side's distance, in strides.
        head_module (dict, optional): Settings of the layers (``YOLOv8HeadModule``).
        loss_cls (dict, optional): Loss of the class logits and soft targets of the same shape: any
            of MMDetection's that takes ``(pred, target, avg_factor=...)``. Defaults to
            ``SoftTargetBCELoss``, weight 0.5.
        loss_bbox (dict, optional): Loss of boxes in strides. Defaults to ``YOLOCIoULoss``, 7.5.
        loss_dfl (dict, optional): Loss of the sides' distributions. Defaults to
            ``DistributionFocalLoss``, 1.5 / 4: it sums four sides where YOLO takes their mean.
        scale_by_batch (bool): Whether the losses are multiplied by the number of images of all
            processes, as YOLO's learning rates expect it.
        train_cfg (dict, optional): ``assigner``, by default ``BatchTaskAlignedAssigner``.
        test_cfg (dict, optional): ``score_thr``, ``nms``, ``max_per_img``, ``nms_pre`` (candidates
            of an image that enter NMS), ``multi_label`` (whether a point may give several classes).
        init_cfg (dict, optional): Initialisation.

    Examples:
        >>> head = YOLOv8Head(num_classes=3, in_channels=[64, 128, 256])
        >>> cls_scores, bbox_preds = head(feats)  # logits (N, 3, H, W), (N, 64, H, W) by level
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: Sequence[int] = (256, 512, 1024),
        widen_factor: float = 1.0,
        strides: Sequence[int] = (8, 16, 32),
        reg_max: int = 16,
        head_module: Optional[ConfigType] = None,
        loss_cls: Optional[ConfigType] = None,
        loss_bbox: Optional[ConfigType] = None,
        loss_dfl: Optional[ConfigType] = None,
        scale_by_batch: bool = True,
        train_cfg: Optional[ConfigType] = None,
        test_cfg: Optional[ConfigType] = None,
        init_cfg: Optional[Union[dict, List[dict]]] = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.num_classes = num_classes
        self.cls_out_channels = num_classes
        self.in_channels = tuple(scale_channels(c, widen_factor) for c in in_channels)
        self.reg_max = reg_max
        defaults = dict(
            type='YOLOv8HeadModule',
            num_classes=num_classes,
            in_channels=self.in_channels,
            strides=strides,
            reg_max=reg_max,
        )
        self.head_module = MODELS.build(dict(defaults, **(head_module or {})))
        self.prior_generator = MlvlPointGenerator(strides, offset=0.5)
        self.loss_cls = MODELS.build(loss_cls or dict(type='SoftTargetBCELoss', loss_weight=0.5))
        self.loss_bbox = MODELS.build(loss_bbox or dict(type='YOLOCIoULoss', loss_weight=7.5))
        self.loss_dfl = MODELS.build(
            loss_dfl or dict(type='DistributionFocalLoss', loss_weight=1.5 / 4)
        )
        self.scale_by_batch = scale_by_batch
        self.train_cfg = ConfigDict(train_cfg or {})
        self.test_cfg = test_cfg
        assigner = self.train_cfg.get('assigner') or dict(type='BatchTaskAlignedAssigner')
        self.assigner = TASK_UTILS.build(assigner)
        self.register_buffer('bins', torch.arange(reg_max, dtype=torch.float), persistent=False)

    def forward(self, x: Sequence[Tensor]) -> Tuple[List[Tensor], List[Tensor]]:
        """Compute the raw maps; see :class:`YOLOv8HeadModule`."""
        return self.head_module(x)

    def loss_by_feat(
        self,
        cls_scores: Sequence[Tensor],
        bbox_preds: Sequence[Tensor],
        batch_gt_instances: InstanceList,
        batch_img_metas: List[dict],
        batch_gt_instances_ignore: OptInstanceList = None,
    ) -> Dict[str, Tensor]:
        """Compute the losses from the raw maps, in float32.

        Args:
            cls_scores (Sequence[Tensor]): (N, num_classes, H_l, W_l) logits.
            bbox_preds (Sequence[Tensor]): (N, 4 * reg_max, H_l, W_l) logits.
            batch_gt_instances (list[InstanceData]): ``bboxes`` in pixels and ``labels`` of each
                image; there may be none.
            batch_img_metas (list[dict]): Not used.
            batch_gt_instances_ignore (list[InstanceData], optional): Not used: crowds are
                background, as for YOLO.

        Returns:
            dict[str, Tensor]: ``loss_cls``, ``loss_bbox`` and ``loss_dfl``; finite and connected
            to the maps without an object, too.
        """
        with torch.autocast(cls_scores[0].device.type, enabled=False):
            logits, bins = _flatten(cls_scores).float(), _flatten(bbox_preds).float()
            priors = self._priors(cls_scores)
            objects = self._join(batch_gt_instances, logits)
            assigned = self._assign(logits, bins, priors, objects)

            number = priors.shape[0]
            images, points = assigned.points // number, assigned.points % number
            target = torch.zeros_like(logits)
            target[images, objects.labels[assigned.objects], points] = assigned.scores
            total = assigned.scores.sum().clamp(min=1)

            # distances and boxes in strides
            strides = priors[points, 2:3]
            centers = priors[points, :2] / strides
            boxes = objects.bboxes[assigned.objects] / strides
            positive_bins = bins[images, :, points]
            distances = torch.cat((centers - boxes[:, :2], boxes[:, 2:] - centers), dim=1)
            losses = dict(
                loss_cls=self.loss_cls(logits, target, avg_factor=total),
                loss_bbox=self.loss_bbox(
                    distance2bbox(centers, self._expected(positive_bins)),
                    boxes,
                    weight=assigned.scores,
                    avg_factor=total,
                ),
                loss_dfl=self.loss_dfl(
                    positive_bins.reshape(-1, self.reg_max),
                    distances.clamp(0, self.reg_max - 1 - 0.01).reshape(-1),
                    weight=assigned.scores.repeat_interleave(4),
                    avg_factor=total,
                ),
            )
        factor = self.batch_factor(len(logits))
        return {name: loss * factor for name, loss in losses.items()}

    def batch_factor(self, num_images: int) -> float:
        """Return what the losses are multiplied by.

        Args:
            num_images (int): Images of this process.

        Returns:
            float: With ``scale_by_batch`` the number of images of all processes, else 1.
        """
        return float(num_images * get_world_size()) if self.scale_by_batch else 1.0

    def predict_by_feat(
        self,
        cls_scores: Sequence[Tensor],
        bbox_preds: Sequence[Tensor],
        score_factors: None = None,
        batch_img_metas: Optional[List[dict]] = None,
        cfg: Optional[ConfigDict] = None,
        rescale: bool = False,
        with_nms: bool = True,
    ) -> InstanceList:
        """Decode the raw maps to boxes.

        Args:
            cls_scores (Sequence[Tensor]): (N, num_classes, H_l, W_l) logits.
            bbox_preds (Sequence[Tensor]): (N, 4 * reg_max, H_l, W_l) logits.
            score_factors (None): Not used.
            batch_img_metas (list[dict]): ``img_shape``, and ``scale_factor`` to rescale.
            cfg (ConfigDict, optional): In place of ``test_cfg``.
            rescale (bool): Whether boxes are in pixels of the original image.
            with_nms (bool): Whether to suppress overlapping boxes.

        Returns:
            list[InstanceData]: ``bboxes`` (M, 4), ``scores`` (M,), ``labels`` (M,) of each image.
        """
        # MMDetection's order of the arguments makes it optional
        assert batch_img_metas is not None
        cfg = ConfigDict(self.test_cfg if cfg is None else cfg)
        scores = _flatten(cls_scores).float().sigmoid()
        # half precision is pixels off
        with torch.autocast(scores.device.type, enabled=False):
            bboxes = self._decode(_flatten(bbox_preds).float(), self._priors(cls_scores))
        results = []
        for score, bbox, meta in zip(scores, bboxes, batch_img_metas):
            limit = cfg.get('nms_pre', 30000)
            if cfg.get('multi_label', True):
                score, label, index, _ = filter_scores_and_topk(score.t(), cfg.score_thr, limit)
            else:
                best, classes = score.max(dim=0)
                score, _, index, _ = filter_scores_and_topk(best[:, None], cfg.score_thr, limit)
                label = classes[index]
            instances = InstanceData(scores=score, labels=label, bboxes=bbox[index])
            instances = self._bbox_post_process(instances, cfg, rescale, with_nms, meta)
            # after NMS, as for YOLO: cut boxes would overlap more or less than whole ones
            shape = meta.get('ori_shape', meta['img_shape']) if rescale else meta['img_shape']
            instances.bboxes[:, 0::2].clamp_(0, shape[1])
            instances.bboxes[:, 1::2].clamp_(0, shape[0])
            results.append(instances)
        return results

    def _priors(self, maps: Sequence[Tensor]) -> Tensor:
        """Return (A, 4) points and strides ``(x, y, stride, stride)`` in pixels, in float32."""
        sizes = [tuple(level.shape[-2:]) for level in maps]
        return torch.cat(
            self.prior_generator.grid_priors(sizes, device=maps[0].device, with_stride=True)
        )

    def _expected(self, bins: Tensor) -> Tensor:
        """Return the expected distances (K, 4) in strides of logits (K, 4 * reg_max)."""
        return bins.reshape(-1, 4, self.reg_max).softmax(dim=2) @ self.bins

    def _decode(self, bins: Tensor, priors: Tensor) -> Tensor:
        """Return boxes (N, A, 4) in pixels of logits (N, 4 * reg_max, A)."""
        batch, _, number = bins.shape
        probabilities = bins.view(batch, 4, self.reg_max, number).softmax(dim=2)
        distances = torch.einsum('nbra,r->nab', probabilities, self.bins) * priors[:, 2:3]
        return distance2bbox(priors[None, :, :2].expand(batch, -1, -1), distances)

    @torch.no_grad()
    def _assign(self, logits: Tensor, bins: Tensor, priors: Tensor, objects: _Objects):
        """Assign the points, decoding only where an object is."""
        number = len(priors)
        pairs = self.assigner.find_pairs(priors[:, :2], objects.bboxes)
        images = objects.images[pairs.objects]
        covered, slot = torch.unique(images * number + pairs.points, return_inverse=True)
        points = covered % number
        distances = self._expected(bins[covered // number, :, points]) * priors[points, 2:3]
        return self.assigner.assign_pairs(
            logits[images, objects.labels[pairs.objects], pairs.points].sigmoid(),
            distance2bbox(priors[points, :2], distances)[slot],
            pairs,
            number,
            objects.bboxes,
            objects.images,
        )

    def _join(self, batch_gt_instances: InstanceList, like: Tensor) -> _Objects:
        """Join the objects of all images; no point lies in those without an area."""
        boxes = [get_box_tensor(gt.bboxes).to(like).reshape(-1, 4) for gt in batch_gt_instances]
        labels = torch.cat([gt.labels for gt in batch_gt_instances])
        images = torch.tensor(
            [i for i, b in enumerate(boxes) for _ in range(len(b))], dtype=torch.long
        )
        # copied without a wait for the GPU
        images = images.to(like.device, non_blocking=True)
        return _Objects(torch.cat(boxes), labels.to(images.device), images)


def _flatten(maps: Sequence[Tensor]) -> Tensor:
    """Join (N, C, H_l, W_l) maps to (N, C, A) without changing their layout."""
    return torch.cat([level.flatten(2) for level in maps], dim=2)
