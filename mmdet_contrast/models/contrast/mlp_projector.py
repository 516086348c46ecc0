"""Projection head of region embeddings."""

from typing import Optional

import torch
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn


@MODELS.register_module()
class MLPProjector(BaseModule):
    """Two-layer perceptron over the flattened features of a region (SimCLR, arXiv 2002.05709).

    It is used by the contrastive loss alone and dropped at test time.

    Args:
        in_channels (int): Length F of the flattened features.
        hidden_channels (int): Width of the hidden layer.
        out_channels (int): Length D of the embedding.
        num_levels (int, optional): One perceptron for each of L levels, as in CUT. Defaults to one
            for all.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int = 256,
        out_channels: int = 128,
        num_levels: Optional[int] = None,
    ) -> None:
        super().__init__(init_cfg=dict(type='Kaiming', layer='Linear', distribution='uniform'))
        self.out_channels = out_channels
        self.hidden, self.out = (
            nn.ModuleList(nn.Linear(*sizes) for _ in range(num_levels or 1))
            for sizes in ((in_channels, hidden_channels), (hidden_channels, out_channels))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Project regions.

        Args:
            x (Tensor): (L, M, F) flattened features, or (M, F) with one perceptron; M may be 0.

        Returns:
            Tensor: (L, M, D) or (M, D) embeddings, not normalised.
        """
        return _apply(self.out, _apply(self.hidden, x).relu())


def _apply(layers: nn.ModuleList, x: Tensor) -> Tensor:
    """Run the layer, or each level's layer, all of them in one product."""
    if len(layers) == 1:
        return layers[0](x)
    weight = torch.stack([layer.weight for layer in layers])
    bias = torch.stack([layer.bias for layer in layers])
    return torch.baddbmm(bias[:, None], x.to(weight.dtype), weight.transpose(1, 2))
