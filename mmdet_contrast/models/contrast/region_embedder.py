"""Features of regions and locations on the levels of a pyramid, projected."""

from typing import List, Optional, Sequence, Union

import torch
from mmdet.registry import MODELS
from mmengine.model import BaseModule, ModuleList
from torch import Tensor

from .region_pool import pool_regions, take_cells


class RegionEmbedder(BaseModule):
    """Pool regions on each level of a feature pyramid and project them.

    Args:
        in_channels (int | Sequence[int]): Channels C of every level, or of each.
        strides (Sequence[int]): Stride of every level in pixels.
        levels (Sequence[int], optional): Indices of the L levels used. Defaults to all.
        assign (str): ``'all'``: regions are embedded on every level. ``'scale'``: each on the
            level of its size.
        pool_size (int): Height and width P of the pooled features.
        sampling_ratio (int): Samples per cell and axis of RoIAlign, at least 1.
        projector (dict, optional): Config of the projector; None: flattened features.
        share_projector (bool): One projector for all levels, or one for each.
        init_cfg (dict, optional): Initialisation.

    Raises:
        ValueError: If levels, sizes or channels do not fit together.
    """

    def __init__(
        self,
        in_channels: Union[int, Sequence[int]],
        strides: Sequence[int],
        levels: Optional[Sequence[int]] = None,
        assign: str = 'all',
        pool_size: int = 7,
        sampling_ratio: int = 2,
        projector: Optional[dict] = None,
        share_projector: bool = True,
        init_cfg: Optional[Union[dict, List[dict]]] = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        if pool_size < 1 or sampling_ratio < 1:
            raise ValueError(
                f'RegionContrast got pool_size={pool_size} and sampling_ratio={sampling_ratio}, '
                'at least 1 expected of both.'
            )
        self.strides = tuple(strides)
        self.levels = tuple(range(len(strides)) if levels is None else levels)
        known = set(self.levels) <= set(range(len(self.strides)))
        if not self.levels or not known or len(set(self.levels)) < len(self.levels):
            raise ValueError(
                f'RegionContrast got levels={levels}, indices from 0 to {len(self.strides) - 1}, '
                f'each once, expected: the strides are {self.strides}.'
            )
        self.assign = assign
        self.pool_size = pool_size
        self.sampling_ratio = sampling_ratio

        if isinstance(in_channels, int):
            in_channels = [in_channels] * len(self.strides)
        channels = [in_channels[i] for i in self.levels]
        if len(set(channels)) > 1 and (projector is None or share_projector):
            raise ValueError(
                f'RegionContrast got levels of {tuple(channels)} channels, which one projector, or '
                'none, cannot make comparable: set bbox_head.contrast.projector='
                "dict(type='MLPProjector') and bbox_head.contrast.share_projector=False."
            )
        self.share_projector = share_projector
        self.projectors = ModuleList()
        if projector is not None:
            for c in channels[:1] if share_projector else channels:
                cfg = dict(dict(type='MLPProjector', in_channels=c * pool_size**2), **projector)
                self.projectors.append(MODELS.build(cfg))
        # length D of the embeddings; None where a projector does not tell
        self.embedding_channels: Optional[int] = channels[0] * pool_size**2
        if projector is not None:
            self.embedding_channels = getattr(self.projectors[0], 'out_channels', None)

    def assign_levels(self, rois: Tensor) -> Tensor:
        """Return for each box the position, among the levels used, of the one of its size."""
        if self.assign == 'all':
            return torch.zeros(len(rois), dtype=torch.long, device=rois.device)
        sizes = ((rois[:, 3] - rois[:, 1]) * (rois[:, 4] - rois[:, 2])).clamp(min=1).sqrt()
        anchors = rois.new_tensor([4.0 * self.strides[i] for i in self.levels])
        return (sizes.log2()[:, None] - anchors.log2()).abs().argmin(dim=1)

    def embed(self, feats: Sequence[Tensor], rois: Tensor, level: Optional[Tensor]) -> Tensor:
        """Pool and project regions.

        Args:
            feats (Sequence[Tensor]): Features of every level.
            rois (Tensor): (K, 5) regions.
            level (Tensor, optional): (K,) positions of the levels of the boxes with
                ``assign='scale'``; None embeds on every level whatever ``assign`` says.

        Returns:
            Tensor: (K, L, D) embeddings, or (K, 1, D) where each region is on one level.
        """
        one_level = self.assign == 'scale' and level is not None
        pooled, order = [], []
        for i, index in enumerate(self.levels):
            chosen = (level == i).nonzero()[:, 0] if one_level else None
            regions = rois if chosen is None else rois[chosen]
            pooled.append(self._pool(feats[index], regions, self.strides[index]))
            order.append(chosen)
        if not self.projectors:
            embedded = pooled
        elif self.share_projector:
            joined = self.projectors[0](torch.cat(pooled))
            embedded = joined.split([len(x) for x in pooled])
        else:
            embedded = [project(x) for project, x in zip(self.projectors, pooled)]
        if not one_level:
            return torch.stack(tuple(embedded), dim=1)
        return torch.cat(tuple(embedded))[torch.cat(order).argsort()][:, None]

    def _pool(self, feat: Tensor, rois: Tensor, stride: int) -> Tensor:
        """Return the flattened features (K, C * P * P) of regions on a level."""
        pooled = pool_regions(feat, rois, self.pool_size, stride, self.sampling_ratio)
        return pooled.flatten(1)

    def embed_cells(self, feat: Tensor, cells: Tensor, position: int) -> Tensor:
        """Take and project single cells of a level.

        Args:
            feat (Tensor): (B, C, H, W) features of the level.
            cells (Tensor): (K,) distinct long indices ``(image * H + y) * W + x``.
            position (int): Position of the level among those used.

        Returns:
            Tensor: (K, D) embeddings.
        """
        rows = take_cells(feat, cells)
        rows = rows.to(torch.promote_types(feat.dtype, torch.float32))
        if not self.projectors:
            return rows
        return self.projectors[0 if self.share_projector else position](rows)
