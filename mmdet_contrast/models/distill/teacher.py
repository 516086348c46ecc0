"""The teacher of a distillation."""

from pathlib import Path
from typing import Any, List, Optional, Sequence, Union

import torch
from mmdet.models.detectors.base import BaseDetector
from mmdet.registry import MODELS
from mmdet.structures import SampleList
from mmengine.runner import CheckpointLoader
from torch import Tensor

from mmdet_contrast.compat import reverses_channels
from mmdet_contrast.utils.checkpoint import classes_of, find_misfits, refuse_misfits
from mmdet_contrast.utils.model import model_section


class Teacher:
    """A frozen detector that is no part of the student's modules.

    It is a plain object, so that the student's parameters, ``state_dict`` and ``train()`` do not
    reach the network, and copies of the student (EMA makes one) share it. The network is built when
    it is loaded: to test a student nothing of the teacher is needed.

    Args:
        config (dict | str | Path): The detector's config: its ``model`` section, a whole config, or
            the path of one.
        checkpoint (str, optional): Path or URL of its weights.
        classes (Sequence[str], optional): Names of its classes; by default those that the
            checkpoint names.
        data_preprocessor (dict, optional): For a config without one.
    """

    def __init__(
        self,
        config: Union[dict, str, Path],
        checkpoint: Optional[str] = None,
        classes: Optional[Sequence[str]] = None,
        data_preprocessor: Optional[dict] = None,
    ) -> None:
        self.config = config
        self.checkpoint = checkpoint
        self.classes = None if classes is None else tuple(classes)
        self.data_preprocessor = data_preprocessor
        self.model: Optional[BaseDetector] = None
        self._normalises_alike: Optional[bool] = None

    def __deepcopy__(self, memo: dict) -> 'Teacher':
        return self

    def build(self) -> BaseDetector:
        """Build the network, without its weights.

        Returns:
            BaseDetector: The network, also kept as ``model``.
        """
        model = MODELS.build(model_section(self.config, self.data_preprocessor))
        self.model = model.eval().requires_grad_(False)
        return self.model

    def load(self) -> None:
        """Build the network, and load its weights and the names of its classes.

        Raises:
            ValueError: If there is no checkpoint, or not a name for each class.
            FileNotFoundError: If the config or the checkpoint is missing.
            LaunchError: If the weights do not fill the network.
        """
        if self.model is not None:
            return
        if self.checkpoint is None:
            raise ValueError('The teacher has no weights: set model.teacher_checkpoint.')
        model = self.build()
        checkpoint = CheckpointLoader.load_checkpoint(self.checkpoint, map_location='cpu')
        refuse_misfits(
            find_misfits(model, checkpoint),
            f'model.teacher_checkpoint {self.checkpoint!r}',
            'model.teacher',
        )
        if self.classes is None:
            self.classes = tuple(classes_of(checkpoint)) or None
        number = getattr(getattr(model, 'bbox_head', None), 'num_classes', None)
        if self.classes is not None and number not in (None, len(self.classes)):
            raise ValueError(
                f"The teacher's head has {number} classes and its classes are {self.classes}: set "
                'model.teacher_classes to the names in the order of its head.'
            )

    def prepare_inputs(self, inputs: Tensor, samples: SampleList, preprocessor: Any) -> Tensor:
        """Normalise the student's inputs as the teacher's own data preprocessor does.

        Args:
            inputs (Tensor): (N, 3, H, W), normalised and padded by the student's.
            samples (list[DetDataSample]): ``img_shape`` of each image; beyond it is padding.
            preprocessor (DetDataPreprocessor): The student's.

        Returns:
            Tensor: (N, 3, H, W); the same tensor where both normalise alike.
        """
        own = self.model.data_preprocessor
        # once: reading the numbers waits for a GPU
        if self._normalises_alike is None:
            self._normalises_alike = _normalisation(own) == _normalisation(preprocessor)
        if self._normalises_alike:
            return inputs
        # a copy: the student's own padding stays
        out = inputs.clone()
        if hasattr(preprocessor, 'mean'):
            out = out * preprocessor.std.to(inputs) + preprocessor.mean.to(inputs)
        if reverses_channels(own) != reverses_channels(preprocessor):
            out = out.flip(1)
        if hasattr(own, 'mean'):
            out = (out - own.mean.to(inputs)) / own.std.to(inputs)
        for image, sample in zip(out, samples):
            height, width = sample.img_shape[:2]
            image[:, height:] = image[:, :, width:] = getattr(own, 'pad_value', 0)
        return out

    def to(self, device: torch.device) -> None:
        """Move the network."""
        # walking through all modules costs milliseconds in every iteration
        if next(self.model.parameters()).device != device:
            self.model.to(device)


def _normalisation(preprocessor: Any) -> List:
    """Return what decides how a data preprocessor normalises."""
    values = (preprocessor.mean, preprocessor.std) if hasattr(preprocessor, 'mean') else ()
    numbers = [value.flatten().tolist() for value in values]
    return [numbers, reverses_channels(preprocessor), getattr(preprocessor, 'pad_value', 0)]
