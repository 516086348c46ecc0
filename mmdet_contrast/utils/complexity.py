"""Parameters and operations of a model, part by part."""

import os
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Union

from mmengine.analysis import FlopAnalyzer
from mmengine.config import Config
from rich.console import Console
from rich.table import Table
from torch import nn

from .launch import load_config
from .plain_forward import PlainForward, build_detector, dummy_images

OUTSIDE = '(outside modules)'
TOTAL = 'total'


class ModuleComplexity(NamedTuple):
    """What one part of a model holds and does.

    Attributes:
        name (str): The part's attribute name in the model, or ``'total'``.
        trainable (int): Number of parameters that are trained.
        frozen (int): Number of parameters that are not.
        flops (int): Operations of one forward pass of one image, counted as MMEngine does: a
            multiplication and its addition are one.
    """

    name: str
    trainable: int
    frozen: int
    flops: int

    @property
    def params(self) -> int:
        """Number of all parameters."""
        return self.trainable + self.frozen


def measure_complexity(
    model: nn.Module, shape: Sequence[int] = (640, 640)
) -> List[ModuleComplexity]:
    """Count parameters and operations of a model's parts for one image.

    Operations are counted by MMEngine's ``FlopAnalyzer``, the counter of its
    ``get_model_complexity_info``, in the forward pass without post-processing; it knows
    convolutions, matrix products, normalisation, resizing and pooling, and counts nothing for
    activations and additions.

    Args:
        model (nn.Module): A detector of MMDetection, or any module that takes an (N, 3, H, W)
            tensor.
        shape (Sequence[int]): Height and width of the image in pixels. Defaults to (640, 640).

    Returns:
        list[ModuleComplexity]: The parts in the model's order (those with neither parameters nor
        operations left out), one row for operations outside of them if there are any, and the
        total.

    Raises:
        ValueError: If ``shape`` is not a height and a width.
    """
    images = dummy_images(shape)
    training = model.training
    analyzer = FlopAnalyzer(PlainForward(model).eval(), (images,))
    # What is unsupported (activations, additions) is said above; what is uncalled (losses, hooks
    # of training) has no part in a forward pass.
    analyzer.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    flops = analyzer.by_module()
    model.train(training)
    parts = dict(model.named_children())
    rows = [_row(name, part.parameters(), flops[f'model.{name}']) for name, part in parts.items()]
    total = _row(TOTAL, model.parameters(), flops[''])
    own = list(model.parameters(recurse=False))
    rest = _row(OUTSIDE, own, total.flops - sum(row.flops for row in rows))
    return [row for row in (*rows, rest) if row.params or row.flops] + [total]


def complexity_table(rows: Sequence[ModuleComplexity], shape: Sequence[int]) -> str:
    """Write the counts as a table for a terminal.

    Args:
        rows (Sequence[ModuleComplexity]): As :func:`measure_complexity` returns them.
        shape (Sequence[int]): Height and width they were measured at.

    Returns:
        str: The table.
    """
    table = Table(
        title=f'one image of 3 x {shape[0]} x {shape[1]}',
        caption='FLOPs: a multiplication and its addition count as one',
    )
    table.add_column('module')
    for name in ('parameters', 'trainable', 'frozen', 'GFLOPs'):
        table.add_column(name, justify='right')
    for row in rows:
        if row.name == TOTAL:
            table.add_section()
        counts = (f'{count:,}' for count in (row.params, row.trainable, row.frozen))
        table.add_row(row.name, *counts, f'{row.flops / 1e9:.3f}')
    # A width of its own: a pipe has none, and rich would cut names.
    console = Console(width=120)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def config_complexity(
    config: Union[str, 'os.PathLike[str]', Config],
    shape: Sequence[int] = (640, 640),
    cfg_options: Optional[Dict[str, Any]] = None,
) -> str:
    """Build a config's model and tabulate its parameters and operations.

    No data set is needed, and no weights are downloaded.

    Args:
        config (str | PathLike | Config): Config file, or a loaded config.
        shape (Sequence[int]): Height and width of the image in pixels. Defaults to (640, 640).
        cfg_options (dict, optional): Dotted config keys and their new values.

    Returns:
        str: The table of :func:`complexity_table`.

    Raises:
        ValueError: If the config cannot be used, or ``shape`` is not a height and a width.
    """
    model = build_detector(load_config(config, cfg_options=cfg_options))
    return complexity_table(measure_complexity(model, shape), shape)


def _row(name: str, parameters: Any, flops: float) -> ModuleComplexity:
    counts = {True: 0, False: 0}
    for parameter in parameters:
        counts[parameter.requires_grad] += parameter.numel()
    return ModuleComplexity(name, counts[True], counts[False], int(flops))
