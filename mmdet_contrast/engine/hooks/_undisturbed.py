"""Looking at a model in the middle of its training without changing anything."""

import random
from contextlib import contextmanager
from typing import Iterator

import numpy as np
import torch
from mmengine.dist import broadcast, get_world_size
from torch import nn


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Put a model in eval mode without gradients; restore its mode and all random states after.

    Between distributed processes the statistics of batch normalisation may differ; within, all have
    those of the first, which its checkpoints hold.

    Args:
        model (nn.Module): The model. Modes are kept for each module, as parts may be in eval mode
            while the rest trains.

    Yields:
        None: Within, the model is in eval mode and no gradient is recorded.
    """
    modes = [(module, module.training) for module in model.modules()]
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    buffers = list(model.buffers()) if get_world_size() > 1 else []
    own = [buffer.clone() for buffer in buffers]
    model.eval()
    for buffer in buffers:
        broadcast(buffer, src=0)
    try:
        with torch.no_grad():
            yield
    finally:
        # not model.train(), which a backbone with frozen stages overrides
        for module, training in modes:
            module.training = training
        for buffer, value in zip(buffers, own):
            buffer.copy_(value)
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        if devices:
            torch.cuda.set_rng_state_all(devices)
