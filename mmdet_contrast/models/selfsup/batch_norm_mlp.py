"""Perceptron with batch normalisation, as SimSiam's projector and predictor are made of."""

from typing import Optional, Sequence

from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn


@MODELS.register_module()
class BatchNormMLP(BaseModule):
    """Linear layers, each but the last followed by BN and ReLU (SimSiam, arXiv 2011.10566).

    A linear layer that BN follows has no bias, because BN takes every constant away.

    Args:
        channels (Sequence[int]): Width of the input, of every hidden layer, of the output: three
            widths make two layers.
        last_norm (bool): Whether BN without affine parameters ends the last layer, which makes it
            the projector of SimSiam. Defaults to False: a predictor, which ends with a bias.
        init_cfg (dict, optional): Initialisation; defaults to PyTorch's of ``nn.Linear``, as in
            SimSiam.

    Raises:
        ValueError: If ``channels`` has fewer than two entries or one that is not positive.

    Examples:
        >>> projector = BatchNormMLP((512, 2048, 2048, 2048), last_norm=True)
        >>> predictor = BatchNormMLP((2048, 512, 2048))
    """

    def __init__(
        self, channels: Sequence[int], last_norm: bool = False, init_cfg: Optional[dict] = None
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        if len(channels) < 2 or min(channels) < 1:
            raise ValueError(
                f'BatchNormMLP(channels={tuple(channels)}) given, two or more positive widths '
                'expected: the input, every hidden layer, the output.'
            )
        self.in_channels, self.out_channels = channels[0], channels[-1]
        layers = []
        for wide, narrow in zip(channels[:-2], channels[1:-1]):
            layers += [
                nn.Linear(wide, narrow, bias=False),
                nn.BatchNorm1d(narrow),
                nn.ReLU(inplace=True),
            ]
        layers.append(nn.Linear(channels[-2], channels[-1], bias=not last_norm))
        if last_norm:
            layers.append(nn.BatchNorm1d(channels[-1], affine=False))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Map vectors.

        Args:
            x (Tensor): (N, in_channels), N > 1 in training, where BN needs two values of a channel.

        Returns:
            Tensor: (N, out_channels), not normalised to length 1.
        """
        return self.layers(x)
