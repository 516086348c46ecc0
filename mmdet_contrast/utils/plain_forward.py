"""A detector as a plain network: built without weights to download, called without annotations."""

from typing import Any, Optional, Sequence

import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor, nn


class PlainForward(nn.Module):
    """Calls a detector in ``mode='tensor'``: normalised images in, raw head outputs out.

    Two-stage detectors ask for the size of each image even then, so it is given here.

    Args:
        model (nn.Module): A detector of MMDetection; anything else is called as it is.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Any:
        """Run the network.

        Args:
            inputs (Tensor): (N, 3, H, W) float, as the data preprocessor returns them.

        Returns:
            Any: What the head returns, most often a tuple of lists of (N, C, H_l, W_l) tensors.
        """
        if not hasattr(self.model, 'data_preprocessor'):
            return self.model(inputs)
        size = tuple(int(side) for side in inputs.shape[-2:])
        meta = dict(
            img_shape=size,
            ori_shape=size,
            pad_shape=size,
            batch_input_shape=size,
            scale_factor=(1, 1),
        )
        samples = [DetDataSample(metainfo=meta) for _ in range(inputs.shape[0])]
        return self.model(inputs, samples, mode='tensor')


def build_detector(cfg: Config, checkpoint: Optional[str] = None) -> nn.Module:
    """Build a config's model on the CPU in evaluation mode.

    Nothing is downloaded: pre-trained weights that the config names are for the start of training.

    Args:
        cfg (Config): A loaded config with ``model``.
        checkpoint (str, optional): File with the weights. Without one they are random.

    Returns:
        nn.Module: The detector.

    Raises:
        ValueError: If the config has no model, or the checkpoint does not fill it.
        FileNotFoundError: If there is no such checkpoint.
    """
    if 'model' not in cfg:
        raise ValueError(f'config {cfg.filename!r} has no model: give the config of a detector.')
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    # `init_weights` is what would download, and it is left to the runner.
    model = revert_sync_batchnorm(MODELS.build(cfg.model)).eval()
    if checkpoint is not None:
        _load_weights(model, checkpoint)
    return model


def _load_weights(model: nn.Module, checkpoint: str) -> None:
    """Load a checkpoint, refusing one that leaves some of the model random."""
    loaded = CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu')
    weights = loaded.get('state_dict', loaded)
    own = model.state_dict()
    # `module.` is what a wrapper for several processes adds.
    found = {key[7:] if key.startswith('module.') else key: weights[key] for key in weights}
    missing = [key for key in own if key not in found and not key.endswith('num_batches_tracked')]
    other = [key for key in own if key in found and found[key].shape != own[key].shape]
    if missing:
        raise ValueError(
            f'checkpoint {checkpoint!r} lacks {len(missing)} of {len(own)} weights of the model, '
            f'e.g. {missing[0]!r}: give a checkpoint that was trained with this config.'
        )
    if other:
        key = other[0]
        raise ValueError(
            f'checkpoint {checkpoint!r} has {key!r} of shape {tuple(found[key].shape)}, and the '
            f'model {tuple(own[key].shape)}: give a checkpoint that was trained with this config.'
        )
    # What the model has no place for, such as a projector that only training needs, stays out.
    model.load_state_dict(found, strict=False)


def dummy_images(shape: Sequence[int], batch_size: int = 1) -> Tensor:
    """Make random images to run a network on.

    Args:
        shape (Sequence[int]): Height and width in pixels, both positive.
        batch_size (int): Number of images. Defaults to 1.

    Returns:
        Tensor: (batch_size, 3, H, W) float32, the same for every call.

    Raises:
        ValueError: If ``shape`` is not two positive numbers.
    """
    if len(shape) != 2 or min(shape) < 1:
        raise ValueError(
            f'shape is {tuple(shape)}, but must be a height and a width in pixels, e.g. 640 640.'
        )
    return torch.randn((batch_size, 3, *shape), generator=torch.Generator().manual_seed(batch_size))
