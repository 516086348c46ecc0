"""Export of a detector's network to ONNX, and a check of what was exported."""

import inspect
import os
import warnings
from typing import Any, Dict, List, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from mmdet_contrast.utils.config import LaunchError
from mmdet_contrast.utils.files import PathLike
from mmdet_contrast.utils.model import PlainForward, dummy_images, evaluating

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
        LaunchError: If the number of names differs.
    """
    groups = list(outputs) if isinstance(outputs, (tuple, list)) else [outputs]
    if names is None:
        names = [f'output{index}' for index in range(len(groups))]
    if len(names) != len(groups):
        raise LaunchError(
            f'{len(names)} output names were given ({", ".join(names)}), but the head returns '
            f'{len(groups)} kinds of outputs: give one name for each.'
        )
    flat: List[Tuple[str, Tensor]] = []
    for name, group in zip(names, groups):
        if isinstance(group, (tuple, list)):
            flat += [(f'{name}_level{level}', item) for level, item in enumerate(group)]
        else:
            flat.append((name, group))
    return flat


def export_onnx(
    model: nn.Module,
    path: PathLike,
    shape: Sequence[int],
    names: Optional[Sequence[str]] = None,
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

    Returns:
        list[str]: The names of the outputs.

    Raises:
        ImportError: If the package onnx is not installed.
        LaunchError: If the model has two stages, or ``names`` do not fit.

    Example:
        >>> export_onnx(model, 'retina.onnx', (640, 640), names=['cls_score', 'bbox_pred'])
    """
    import onnx

    if getattr(model, 'with_rpn', False):
        raise LaunchError(
            f'{type(model).__name__} has two stages, and the second needs the NMS of the first: '
            'give a single-stage detector.'
        )
    # More than one, so that the tracer does not take the batch for an axis of length 1.
    images = dummy_images(shape, batch_size=2)
    with evaluating(model), torch.no_grad(), warnings.catch_warnings():
        flat = _FlatForward(model).eval()
        # The tracer warns of every size that it takes as fixed, as they are here; the number of
        # images is what a check at other batch sizes is for.
        warnings.simplefilter('ignore', torch.jit.TracerWarning)
        warnings.simplefilter('ignore', DeprecationWarning)
        output_names = [name for name, _ in flatten_outputs(flat.plain(images), names)]
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
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
            opset_version=_OPSET,
            **options,
        )
    onnx.checker.check_model(os.fspath(path))
    return output_names


def check_onnx(model: nn.Module, path: PathLike, shape: Sequence[int]) -> float:
    """Compare an exported file with the model it came from, on random images.

    Args:
        model (nn.Module): The detector, on the CPU.
        path (str | PathLike): The ONNX file.
        shape (Sequence[int]): Height and width of the images in pixels, as exported.

    Returns:
        float: The largest absolute difference.

    Raises:
        ImportError: If the package onnxruntime is not installed.
        AssertionError: If an output differs by more than 1e-3 of its value and 1e-4.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(os.fspath(path), providers=['CPUExecutionProvider'])
    names = [output.name for output in session.get_outputs()]
    largest = 0.0
    for batch_size in (1, 3):
        images = dummy_images(shape, batch_size)
        with evaluating(model), torch.no_grad():
            expected = _FlatForward(model)(images)
        found = session.run(names, {INPUT_NAME: images.numpy()})
        for name, array, tensor in zip(names, found, expected):
            other = torch.from_numpy(array)
            where = f'{name} of {os.fspath(path)!r} for a batch of {batch_size}: '
            torch.testing.assert_close(
                other, tensor, rtol=1e-3, atol=1e-4, msg=lambda text, where=where: where + text
            )
            largest = max(largest, float((other - tensor).abs().max()))
    return largest
