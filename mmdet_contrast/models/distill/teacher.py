"""The teacher of a distillation."""

from pathlib import Path
from typing import Any, List, Optional, Sequence, Union

import torch
from mmdet.registry import MODELS
from mmdet.structures import SampleList
from mmengine.runner.checkpoint import _load_checkpoint, _load_checkpoint_to_model
from torch import Tensor, nn

from mmdet_contrast.utils.detector_checks import dataset_meta_of

from .model_config import model_section


class Teacher:
    """A frozen detector that is no part of the student's modules.

    It is a plain object, so that the detector's parameters, ``state_dict`` and ``train()`` do not
    reach the network, and copies of the detector (EMA makes one) share it.

    Args:
        config (dict | str | Path): The detector's config: its ``model`` section, a whole config, or
            the path of one.
        checkpoint (str, optional): Path or URL of its weights.
        classes (Sequence[str], optional): Names of its classes; by default those that the
            checkpoint names.
    """

    def __init__(
        self,
        config: Union[dict, str, Path],
        checkpoint: Optional[str] = None,
        classes: Optional[Sequence[str]] = None,
    ) -> None:
        self.config = model_section(config)
        self.checkpoint = checkpoint
        self.classes = None if classes is None else tuple(classes)
        self.state: Optional[dict] = None
        model = MODELS.build(_without_init_cfg(self.config))
        # a list: whoever holds the teacher must not register the network
        self._model = [model.eval().requires_grad_(False)]

    def __deepcopy__(self, memo: dict) -> 'Teacher':
        return self

    @property
    def model(self) -> nn.Module:
        """nn.Module: The network."""
        return self._model[0]

    def load(self) -> None:
        """Load the weights and the names of the classes.

        Raises:
            ValueError: If there is no checkpoint, or its weights do not fit.
            FileNotFoundError: If the file is missing.
        """
        if self.state is not None:
            return
        if self.checkpoint is None:
            raise ValueError(
                'The teacher has no weights: set model.teacher_checkpoint to the path or URL of '
                'its checkpoint.'
            )
        try:
            checkpoint = _load_checkpoint(self.checkpoint, map_location='cpu')
        except FileNotFoundError:
            raise FileNotFoundError(
                f"The teacher's checkpoint {self.checkpoint!r} does not exist (looked in "
                f'{Path.cwd()}): train the teacher, or set model.teacher_checkpoint.'
            ) from None
        state = checkpoint.get('state_dict', checkpoint)
        try:
            _load_checkpoint_to_model(self.model, dict(checkpoint, state_dict=state), strict=True)
        except RuntimeError as error:
            raise ValueError(
                f"The teacher's checkpoint {self.checkpoint!r} does not fit its config: "
                f'{" ".join(str(error).split())[:600]}'
            ) from None
        # not the checkpoint's, whose names may begin with 'module.'
        self.state = self.model.state_dict()
        if self.classes is None:
            meta = checkpoint.get('meta', {}) or {}
            # MMDetection 2 wrote CLASSES, and its published weights are in use
            names = dataset_meta_of(checkpoint).get('classes') or meta.get('CLASSES')
            self.classes = None if names is None else tuple(names)
        number = getattr(getattr(self.model, 'bbox_head', None), 'num_classes', None)
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
        if _normalisation(own) == _normalisation(preprocessor):
            return inputs
        out = inputs
        if getattr(preprocessor, '_enable_normalize', False):
            out = out * preprocessor.std.to(inputs) + preprocessor.mean.to(inputs)
        if _swaps(own) != _swaps(preprocessor):
            out = out.flip(1)
        if getattr(own, '_enable_normalize', False):
            out = (out - own.mean.to(inputs)) / own.std.to(inputs)
        if out is inputs:
            # the student's own padding stays
            out = inputs.clone()
        value = getattr(own, 'pad_value', 0)
        for image, sample in zip(out, samples):
            height, width = sample.img_shape[:2]
            image[:, height:] = value
            image[:, :, width:] = value
        return out

    def to(self, device: torch.device) -> None:
        """Move the network.

        Args:
            device (torch.device): Where to.
        """
        # walking through all modules costs milliseconds in every iteration
        if next(self.model.parameters()).device != device:
            self.model.to(device)


def _normalisation(preprocessor: Any) -> List:
    """Return what decides how a data preprocessor normalises."""
    enabled = getattr(preprocessor, '_enable_normalize', False)
    values = (preprocessor.mean, preprocessor.std) if enabled else ()
    numbers = [v.flatten().tolist() for v in values]
    return [numbers, _swaps(preprocessor), getattr(preprocessor, 'pad_value', 0)]


def _swaps(preprocessor: Any) -> bool:
    """Tell whether the channels are reversed."""
    return bool(getattr(preprocessor, '_channel_conversion', False))


def _without_init_cfg(config: Any) -> Any:
    """Copy a config without the weights that a backbone would load before the checkpoint's."""
    if isinstance(config, dict):
        pretrained = isinstance(config.get('init_cfg'), dict) and (
            config['init_cfg'].get('type') == 'Pretrained'
        )
        items = {k: v for k, v in config.items() if not (pretrained and k == 'init_cfg')}
        return type(config)({k: _without_init_cfg(v) for k, v in items.items()})
    if isinstance(config, (list, tuple)):
        return type(config)(_without_init_cfg(v) for v in config)
    return config
