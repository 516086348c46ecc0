"""Export of a detector's network to ONNX, and a check of what was exported."""

import importlib
import inspect
import os
import warnings
from types import ModuleType
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

import torch
from mmengine.config import Config
from mmengine.utils import mkdir_or_exist
from torch import Tensor, nn

from .launch import load_config
from .plain_forward import PlainForward, build_detector, dummy_images

INPUT_NAME = 'images'
# The newest that the TorchScript exporter of torch 2.1 writes.
_OPSET = 17


class _FlatForward(nn.Module):
    """The plain forward with its nested outputs as one tuple, in the order of their names."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.plain = PlainForward(model)

    def forward(self, images: Tensor) -> Tuple[Tensor, ...]:
        return tuple(tensor for _, tensor in flatten_outputs(self.plain(images)))


def flatten_outputs(
    outputs: Any, names: Optional[Sequence[str]] = None
) -> List[Tuple[str, Tensor]]:
    """Name every tensor among the outputs of a head.

    Args:
        outputs (Any): A tensor, or a tuple or list of tensors and of tuples or lists of them, such
            as the classification maps and the box maps of all levels.
        names (Sequence[str], optional): One name for each of the outer items. Defaults to
            ``output0``, ``output1`` …

    Returns:
        list[tuple[str, Tensor]]: Name and tensor: ``output0`` for a tensor on its own,
        ``output0_level2`` for one in a list.

    Raises:
        ValueError: If there is anything but tensors, or the number of names differs.
    """
    groups = list(outputs) if isinstance(outputs, (tuple, list)) else [outputs]
    if names is None:
        names = [f'output{index}' for index in range(len(groups))]
    if len(names) != len(groups):
        raise ValueError(
            f'{len(names)} output names were given ({", ".join(names)}), but the head returns '
            f'{len(groups)} kinds of outputs: give one name for each.'
        )
    flat: List[Tuple[str, Any]] = []
    for name, group in zip(names, groups):
        if isinstance(group, (tuple, list)):
            flat += [(f'{name}_level{level}', item) for level, item in enumerate(group)]
        else:
            flat.append((name, group))
    for name, item in flat:
        if not isinstance(item, Tensor):
            raise ValueError(
                f'{name} of the head is a {type(item).__name__}: only heads that return tensors, '
                'or lists of tensors, can be exported.'
            )
    return flat


def export_onnx(
    model: nn.Module,
    path: Union[str, 'os.PathLike[str]'],
    shape: Sequence[int],
    names: Optional[Sequence[str]] = None,
    opset: int = _OPSET,
) -> List[str]:
    """Write a single-stage detector's network to an ONNX file.

    The network is the forward pass without pre- and post-processing: it takes images as the data
    preprocessor returns them (normalised, padded), and returns the raw maps of the head, which are
    not yet decoded and have seen no NMS. The number of images is free, their size is fixed.

    Args:
        model (nn.Module): The detector, on the CPU; exported in evaluation mode.
        path (str | PathLike): File to write; its folder is made.
        shape (Sequence[int]): Height and width of the images in pixels.
        names (Sequence[str], optional): See :func:`flatten_outputs`.
        opset (int): Version of ONNX's operators. Defaults to 17.

    Returns:
        list[str]: The names of the outputs.

    Raises:
        ImportError: If the package onnx is not installed.
        ValueError: If the model has two stages, or ``shape`` or ``names`` do not fit.

    Example:
        >>> export_onnx(model, 'retina.onnx', (640, 640), names=['cls_score', 'bbox_pred'])
    """
    onnx = _require('onnx')
    if getattr(model, 'with_rpn', False):
        raise ValueError(
            f'{type(model).__name__} has two stages, and the second needs the NMS of the first: '
            'give a single-stage detector.'
        )
    # More than one, so that the tracer does not take the batch for an axis of length 1.
    images = dummy_images(shape, batch_size=2)
    training = model.training
    model.eval()
    flat = _FlatForward(model).eval()
    with torch.no_grad(), warnings.catch_warnings():
        # The tracer warns of every size that it takes as fixed, as they are here; the number of
        # images is what a check at other batch sizes is for.
        warnings.simplefilter('ignore', torch.jit.TracerWarning)
        warnings.simplefilter('ignore', DeprecationWarning)
        output_names = [name for name, _ in flatten_outputs(flat.plain(images), names)]
        mkdir_or_exist(os.path.dirname(os.path.abspath(os.fspath(path))))
        options: Dict[str, Any] = {}
        # torch >= 2.5 has a second exporter, the default of 2.9, which needs onnxscript; the first
        # is in all of the supported versions.
        if 'dynamo' in inspect.signature(torch.onnx.export).parameters:
            options['dynamo'] = False
        torch.onnx.export(
            flat,
            (images,),
            os.fspath(path),
            input_names=[INPUT_NAME],
            output_names=output_names,
            dynamic_axes={name: {0: 'batch'} for name in (INPUT_NAME, *output_names)},
            opset_version=opset,
            **options,
        )
    model.train(training)
    onnx.checker.check_model(os.fspath(path))
    return output_names


def check_onnx(
    model: nn.Module,
    path: Union[str, 'os.PathLike[str]'],
    shape: Sequence[int],
    batch_sizes: Sequence[int] = (1, 3),
    rtol: float = 1e-3,
    atol: float = 1e-4,
) -> float:
    """Compare an exported file with the model it came from, on random images.

    Args:
        model (nn.Module): The detector, on the CPU.
        path (str | PathLike): The ONNX file.
        shape (Sequence[int]): Height and width of the images in pixels, as exported.
        batch_sizes (Sequence[int]): Numbers of images to try. Defaults to (1, 3).
        rtol (float): Allowed difference relative to the model's value. Defaults to 1e-3.
        atol (float): Allowed difference besides. Defaults to 1e-4.

    Returns:
        float: The largest absolute difference.

    Raises:
        ImportError: If the package onnxruntime is not installed.
        ValueError: If an output differs by more than is allowed.
    """
    runtime = _require('onnxruntime')
    session = runtime.InferenceSession(os.fspath(path), providers=['CPUExecutionProvider'])
    names = [output.name for output in session.get_outputs()]
    training = model.training
    flat = _FlatForward(model).eval()
    largest = 0.0
    for batch_size in batch_sizes:
        images = dummy_images(shape, batch_size)
        with torch.no_grad():
            expected = flat(images)
        found = session.run(names, {INPUT_NAME: images.numpy()})
        for name, array, tensor in zip(names, found, expected):
            other = torch.from_numpy(array)
            if other.shape != tensor.shape:
                raise ValueError(
                    f'{os.fspath(path)!r} returns {name} of shape {tuple(other.shape)} for a batch '
                    f'of {batch_size}, but the model {tuple(tensor.shape)}: export it again.'
                )
            difference = float((other - tensor).abs().max())
            if not torch.allclose(other, tensor, rtol=rtol, atol=atol):
                raise ValueError(
                    f'{os.fspath(path)!r} differs from the model by {difference:.3g} in {name} for '
                    f'a batch of {batch_size} (allowed: {rtol:g} relative and {atol:g} besides): '
                    'export it again from these weights.'
                )
            largest = max(largest, difference)
    model.train(training)
    return largest


def export_config(
    config: Union[str, 'os.PathLike[str]', Config],
    checkpoint: str,
    path: Union[str, 'os.PathLike[str]'],
    shape: Sequence[int] = (640, 640),
    names: Optional[Sequence[str]] = None,
    check: bool = False,
    cfg_options: Optional[Dict[str, Any]] = None,
) -> Tuple[List[str], Optional[float]]:
    """Export a checkpoint of a config to ONNX.

    Args:
        config (str | PathLike | Config): Config file, or a loaded config.
        checkpoint (str): File with the weights.
        path (str | PathLike): File to write.
        shape (Sequence[int]): Height and width of the images in pixels. Defaults to (640, 640).
        names (Sequence[str], optional): See :func:`flatten_outputs`.
        check (bool): Run the file with onnxruntime and compare. Defaults to False.
        cfg_options (dict, optional): Dotted config keys and their new values.

    Returns:
        tuple[list[str], float | None]: The names of the outputs, and the largest difference if it
        was checked.

    Raises:
        ImportError: If a package is missing; see :func:`export_onnx` and :func:`check_onnx`.
        ValueError: If config, checkpoint or shape cannot be used.
    """
    # First, for building and exporting takes long.
    for package in ('onnx', 'onnxruntime')[: 1 + check]:
        _require(package)
    model = build_detector(load_config(config, cfg_options=cfg_options), checkpoint)
    output_names = export_onnx(model, path, shape, names)
    return output_names, check_onnx(model, path, shape) if check else None


def _require(package: str) -> ModuleType:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ImportError(
            f'the export to ONNX needs the package {package} ({error}): '
            'pip install onnx onnxruntime.'
        ) from error
