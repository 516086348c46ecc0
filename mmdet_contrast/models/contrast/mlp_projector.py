"""Projection head of region embeddings."""

from typing import Optional

from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn


@MODELS.register_module()
class MLPProjector(BaseModule):
    """Two-layer perceptron over the flattened features of a region (SimCLR, arXiv 2002.05709).

    It is used by the contrastive loss alone and dropped at test time.

    Args:
        in_channels (int): Length of the flattened features.
        hidden_channels (int): Width of the hidden layer.
        out_channels (int): Length D of the embedding.
        init_cfg (dict, optional): Initialisation; defaults to Kaiming for both layers.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int = 256,
        out_channels: int = 128,
        init_cfg: Optional[dict] = None,
    ) -> None:
        if init_cfg is None:
            init_cfg = dict(type='Kaiming', layer='Linear', distribution='uniform')
        super().__init__(init_cfg=init_cfg)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.layers = nn.Sequential(
            nn.Linear(in_channels, hidden_channels),
            nn.ReLU(inplace=True),
            nn.Linear(hidden_channels, out_channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Project regions.

        Args:
            x (Tensor): (M, in_channels) flattened features; M may be 0.

        Returns:
            Tensor: (M, out_channels) embeddings, not normalised.
        """
        return self.layers(x)
