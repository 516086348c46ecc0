"""Where a tensor for distillation comes from."""

import re
from difflib import get_close_matches
from typing import Any, Dict, List, Optional, Sequence, Tuple

from torch import Tensor, nn

_PATTERN = re.compile(r'(?P<path>[\w.]+?)(\[(?P<index>\d+)\])?')
# the head gives class maps, then box maps
_OUTPUTS = {'bbox_head.cls': 'bbox_head[0]', 'bbox_head.reg': 'bbox_head[1]'}


class Source:
    """A module's output: ``'backbone.stage1'``, or one item of it: ``'neck[0]'``.

    ``'bbox_head.cls'`` and ``'bbox_head.reg'`` are the first and the second item of what a dense
    head returns: the raw maps of the classes, and of the boxes.

    Args:
        text (str): Path of the module in the detector, with the item's index where wanted.
        model (nn.Module): The detector, which must have the module.
        owner (str): ``'student'`` or ``'teacher'``, for messages.

    Raises:
        ValueError: If the detector has no such module.
    """

    def __init__(self, text: str, model: nn.Module, owner: str) -> None:
        self.text = text
        self.owner = owner
        match = _PATTERN.fullmatch(_OUTPUTS.get(text, text))
        modules = dict(model.named_modules())
        if match is None or match['path'] not in modules:
            near = get_close_matches(text, modules, n=5, cutoff=0.4)
            tops = [name for name in modules if name and '.' not in name]
            raise ValueError(
                f'The {owner} has no module {text!r} to distil from; it has '
                f'{", ".join([*tops, *near])}.'
            )
        self.path = match['path']
        self.index = None if match['index'] is None else int(match['index'])

    def pick(self, output: Any) -> List[Tensor]:
        """Return the tensors of an output.

        Args:
            output (Any): What the module returned.

        Returns:
            list[Tensor]: One, or one for each level.

        Raises:
            ValueError: If there is no such item or it holds no maps.
        """
        if self.index is not None:
            if not isinstance(output, (tuple, list)) or self.index >= len(output):
                raise ValueError(
                    f"{self.text!r} asks for item {self.index} of the {self.owner}'s "
                    f'{self.path!r}, which returned {_describe(output)}.'
                )
            output = output[self.index]
        maps = [output] if isinstance(output, Tensor) else output
        if not isinstance(maps, (tuple, list)) or not all(isinstance(m, Tensor) for m in maps):
            raise ValueError(
                f"The {self.owner}'s {self.text!r} returned {_describe(output)}; a tensor or a "
                f"list of tensors expected: choose an item of it, as in '{self.path}[0]'."
            )
        return list(maps)


class SourceRecorder:
    """Record what the modules of sources return while a context is open.

    Args:
        model (nn.Module): The detector.
        sources (Sequence[Source]): What to record.
    """

    def __init__(self, model: nn.Module, sources: Sequence[Source]) -> None:
        self._model = model
        self._sources = sources
        self._outputs: Dict[str, Any] = {}
        self._handles: List = []

    def __enter__(self) -> 'SourceRecorder':
        self._outputs = {}
        for path in {source.path for source in self._sources}:

            def record(module: nn.Module, args: Tuple, output: Any, path: str = path) -> None:
                self._outputs[path] = output

            module = self._model.get_submodule(path)
            self._handles.append(module.register_forward_hook(record))
        return self

    def __exit__(self, *_: Any) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def maps(self, source: Source) -> List[Tensor]:
        """Return what a source's module returned last.

        Args:
            source (Source): One of those recorded.

        Returns:
            list[Tensor]: (N, C, H, W) maps.

        Raises:
            RuntimeError: If the module was not called.
        """
        if source.path not in self._outputs:
            raise RuntimeError(
                f"The {source.owner}'s module {source.path!r} was not called in the forward pass, "
                f'so there is nothing to distil from {source.text!r}: name a module that takes '
                'part.'
            )
        return source.pick(self._outputs[source.path])


def _describe(output: Any) -> Optional[str]:
    """Describe an output for a message."""
    if isinstance(output, (tuple, list)):
        return f'a {type(output).__name__} of {len(output)} ({type(output[0]).__name__} …)'
    return f'a {type(output).__name__}'
