"""A model from outside: its modules by name, their outputs, its forward without annotations."""

import difflib
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Iterator, List, NamedTuple, Optional, Sequence, Union

import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config, ConfigDict
from mmengine.model import BaseTTAModel, is_model_wrapper, revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor, nn

from .checkpoint import find_misfits, refuse_misfits

_SHOWN = 12


def unwrap_model(model: nn.Module) -> nn.Module:
    """Take MMEngine's wrappers, of several processes and of test-time augmentation, off a model.

    Args:
        model (nn.Module): The model.

    Returns:
        nn.Module: The model within.
    """
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model in eval mode, and each of its modules back into its own mode afterwards.

    Parts of a model may be in eval mode while the rest trains, and ``train()`` may be overridden.

    Args:
        model (nn.Module): The model.

    Yields:
        None: With the model in eval mode.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def find_module(model: nn.Module, name: str) -> nn.Module:
    """Find a module by its dotted path.

    Args:
        model (nn.Module): The model.
        name (str): Path, e.g. ``neck.fpn_convs.0``.

    Returns:
        nn.Module: The module.

    Raises:
        ValueError: If there is none; the message names what there is.
    """
    try:
        # '' would be the model
        return model.get_submodule(name or '.')
    except AttributeError:
        # all modules only for the message
        modules = dict(model.named_modules())
    parent = name
    while parent and parent not in modules:
        parent = parent.rpartition('.')[0]
    children = [child for child, _ in modules[parent].named_children()]
    shown = ', '.join(children[:_SHOWN]) + (', …' if len(children) > _SHOWN else '')
    near = difflib.get_close_matches(name, [known for known in modules if known], n=3, cutoff=0.6)
    hint = f'; did you mean {" or ".join(near)}?' if near else '.'
    raise ValueError(
        f'{type(model).__name__} has no module {name!r}: {parent or "it"} has '
        f'{shown or "no parts"}{hint}'
    )


class CapturedMap(NamedTuple):
    """One feature map of one module.

    Attributes:
        name (str): Dotted path of the module.
        level (int): Place among the maps of this module: of its tuple of outputs, or of its calls
            where a head runs one module on every level.
        features (Tensor): (N, C, h, w).
    """

    name: str
    level: int
    features: Tensor


class ModuleCapture:
    """Context in which every (N, C, h, w) output of some modules is kept.

    Modules may give a tensor or any nest of tuples, lists and dicts of tensors, and may be called
    several times. The hooks are removed on leaving, by an exception, too.

    Args:
        model (nn.Module): The model that will be run.
        names (Sequence[str]): Dotted paths of its modules, e.g. ``backbone.layer2``.
        gradient (bool): Whether the maps are kept as tensors that gradients can be taken of; the
            graph then begins at the first of them. Defaults to False: they are copies.

    Raises:
        ValueError: If the model has no such module.

    Example:
        >>> with ModuleCapture(detector, ['neck']) as capture:
        ...     detector.extract_feat(inputs)
        >>> [tuple(entry.features.shape) for entry in capture.maps]
        [(1, 64, 16, 16), (1, 64, 8, 8)]
    """

    def __init__(self, model: nn.Module, names: Sequence[str], gradient: bool = False) -> None:
        self.names = list(dict.fromkeys(names))
        self.maps: List[CapturedMap] = []
        self._modules = [find_module(model, name) for name in self.names]
        self._gradient = gradient
        self._handles: List[Any] = []

    def __enter__(self) -> 'ModuleCapture':
        """Hang the hooks in."""
        for name, module in zip(self.names, self._modules):
            self._handles.append(module.register_forward_hook(self._hook(name)))
        return self

    def __exit__(self, *exception: Any) -> None:
        """Take the hooks out."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def chosen(self, level: Optional[int] = None, one_image: bool = False) -> List[int]:
        """Say which maps a choice of level means.

        Args:
            level (int, optional): Level of each module. None means all.
            one_image (bool): Whether one image went in, so that a chosen map has to be of N = 1.

        Returns:
            list[int]: Places in ``maps``.

        Raises:
            ValueError: If a module has not been called, gave no map, has no such level, or gave
                maps of regions instead of the image.
        """
        places = []
        for name in self.names:
            own = [place for place, entry in enumerate(self.maps) if entry.name == name]
            if not own:
                raise ValueError(
                    f'module {name!r} gave no feature map (N, C, h, w) in the forward pass: it is '
                    'not called there, or gives something else; choose another module.'
                )
            if level is not None and not 0 <= level < len(own):
                sizes = ', '.join(map_size(self.maps[place].features) for place in own)
                raise ValueError(
                    f'level is {level}, but module {name!r} gave {len(own)} feature maps (C x h x '
                    f'w: {sizes}): give a level from 0 to {len(own) - 1}.'
                )
            own = own if level is None else [own[level]]
            # the head of a two-stage detector counts regions where the others count images
            regions = [len(self.maps[place].features) for place in own]
            if one_image and regions != [1] * len(own):
                number = next(count for count in regions if count != 1)
                raise ValueError(
                    f'module {name!r} gives a map for each of {number} regions, not one of the '
                    'image: choose a module before the regions are cut out, such as neck.'
                )
            places += own
        return places

    def _hook(self, name: str) -> Callable[..., Any]:
        def take(features: Tensor) -> Tensor:
            level = sum(entry.name == name for entry in self.maps)
            if self._gradient:
                kept = features
                if not kept.requires_grad:
                    kept = kept.detach().requires_grad_()
                # The model goes on with a copy: an activation in place would change what is kept.
                passed = kept.clone()
            else:
                kept, passed = features.detach().clone(), features
            self.maps.append(CapturedMap(name, level, kept))
            return passed

        return lambda module, inputs, output: _apply(take, output)


def map_size(features: Tensor) -> str:
    """Write the size of a feature map.

    Args:
        features (Tensor): (..., C, h, w).

    Returns:
        str: ``C x h x w``.
    """
    return ' x '.join(str(side) for side in features.shape[-3:])


def _apply(take: Callable[[Tensor], Tensor], output: Any) -> Any:
    """Apply a function to the feature maps in a nest of outputs."""
    if torch.is_tensor(output):
        return take(output) if output.dim() == 4 and output.is_floating_point() else output
    if isinstance(output, dict):
        return {key: _apply(take, value) for key, value in output.items()}
    if isinstance(output, (list, tuple)):
        values = [_apply(take, value) for value in output]
        return type(output)(*values) if hasattr(output, '_fields') else type(output)(values)
    return output


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


def model_section(
    config: Union[dict, str, Path], data_preprocessor: Optional[dict] = None
) -> ConfigDict:
    """Return the model section of a config.

    Args:
        config (dict | str | Path): A ``model`` section, a whole config, or the path of one.
        data_preprocessor (dict, optional): For a model that has none, nor its config beside it.

    Returns:
        ConfigDict: The ``model`` section. As a ``Runner`` does it, what stands beside it in a whole
        config as ``data_preprocessor`` is in it, if it has none of its own.
    """
    content = Config.fromfile(str(config)) if isinstance(config, (str, Path)) else config
    if 'model' in content:
        data_preprocessor = content.get('data_preprocessor') or data_preprocessor
        content = content['model']
    section = ConfigDict(content)
    if data_preprocessor is not None:
        section.setdefault('data_preprocessor', data_preprocessor)
    return section


def build_detector(cfg: Config, checkpoint: Optional[str] = None) -> nn.Module:
    """Build a config's model on the CPU in evaluation mode.

    Nothing is downloaded: pre-trained weights that the config names are for the start of training.

    Args:
        cfg (Config): A loaded config with ``model``.
        checkpoint (str, optional): File with the weights. Without one they are random.

    Returns:
        nn.Module: The detector.

    Raises:
        LaunchError: If the checkpoint is none, is not safe to load, or does not fill the model.
        FileNotFoundError: If there is no such checkpoint.
    """
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    # `init_weights` is what would download, and it is left to the runner.
    model = revert_sync_batchnorm(MODELS.build(model_section(cfg))).eval()
    if checkpoint is not None:
        # What the model has no place for, such as a projector that only training needs, stays out.
        weights = CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu')
        refuse_misfits(find_misfits(model, weights))
    return model


def dummy_images(shape: Sequence[int], batch_size: int = 1) -> Tensor:
    """Make random images to run a network on.

    Args:
        shape (Sequence[int]): Height and width in pixels.
        batch_size (int): Number of images. Defaults to 1.

    Returns:
        Tensor: (batch_size, 3, H, W) float32, the same for every call.
    """
    return torch.randn((batch_size, 3, *shape), generator=torch.Generator().manual_seed(batch_size))
