"""A term of distillation, and where its maps come from."""

import re
from contextlib import contextmanager
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence

from mmdet.registry import MODELS
from torch import Tensor, nn

from mmdet_contrast.utils.model import find_module

# what the head gives, and how that of student and teacher are compared; '': as the loss says
_OUTPUTS = {
    'bbox_head.cls': ('bbox_head[0]', ''),
    'bbox_head.reg': ('bbox_head[1]', ''),
    'bbox_head.boxes': ('bbox_head[1]', 'decoded'),
    'bbox_head.centerness': ('bbox_head[2]', 'centerness'),
}


class Source(NamedTuple):
    """A module's output: ``'backbone.stage1'``, or one item of it: ``'neck[0]'``.

    ``'bbox_head.cls'``, ``'bbox_head.reg'`` and ``'bbox_head.centerness'`` are the first, second
    and third item of what a dense head returns: the raw maps of the classes, of the boxes, and of
    the centerness. ``'bbox_head.boxes'`` are the boxes that the second item stands for.
    """

    text: str
    """As in the config."""
    path: str
    """Of the module in the detector."""
    item: Optional[int]
    """Index of the item, if it is not the whole output."""

    @classmethod
    def parse(cls, text: str) -> 'Source':
        """Read a source from a config.

        Args:
            text (str): Path of the module, with the item's index in brackets where wanted.

        Returns:
            Source: Its path and item.
        """
        path, _, item = _OUTPUTS.get(text, (text, ''))[0].partition('[')
        return cls(text, path, int(item.rstrip(']')) if item else None)

    def maps(self, outputs: Dict[str, List[Any]]) -> List[Tensor]:
        """Return the maps of the source.

        Args:
            outputs (dict[str, list]): What :func:`record` recorded.

        Returns:
            list[Tensor]: One (N, C, H, W) map, or one for each level.

        Raises:
            ValueError: If the module has not been called, as a list of modules is not.
        """
        if self.path not in outputs:
            raise ValueError(
                f'source {self.text!r} is a module that the detector does not call: choose one '
                'that it does, such as one of those inside of it.'
            )
        maps: List[Tensor] = []
        for output in outputs[self.path]:
            output = output if self.item is None else output[self.item]
            maps += [output] if isinstance(output, Tensor) else output
        return maps


# `ModuleCapture` copies maps, and begins the graph anew where nothing before them trains.
@contextmanager
def record(model: nn.Module, sources: Sequence[Source]) -> Iterator[Dict[str, List[Any]]]:
    """Record what the modules of sources return while the context is open.

    Args:
        model (nn.Module): The detector.
        sources (Sequence[Source]): What to record.

    Yields:
        dict[str, list]: The outputs of each module by its path, as the modules run: a layer of a
        head that runs on every level has one for each.

    Raises:
        ValueError: If the detector has no such module.
    """
    outputs: Dict[str, List[Any]] = {}
    handles = [
        find_module(model, path).register_forward_hook(
            lambda module, inputs, output, path=path: outputs.setdefault(path, []).append(output)
        )
        for path in {source.path for source in sources}
    ]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


class Distiller(nn.Module):
    """One term of the loss, as an item of ``distillers`` of ``DistillationDetector`` says it.

    Args:
        source (str): Where the maps are, in both detectors.
        loss (dict): What compares them.
        weight (float): Factor of the term.
        name (str, optional): In the log, after ``loss_distill_``. Defaults to ``source``.
    """

    def __init__(
        self, source: str, loss: dict, weight: float = 1.0, name: Optional[str] = None
    ) -> None:
        super().__init__()
        self.source = Source.parse(source)
        self.criterion = MODELS.build(loss)
        self.weight = float(weight)
        self.name = name or re.sub(r'[.\[]', '_', source).strip(']')
        # 'features', 'classes', 'boxes' (raw), 'decoded' (boxes) or 'centerness'
        self.kind = _OUTPUTS.get(source, ('', ''))[1] or getattr(
            self.criterion, 'distills', 'features'
        )
