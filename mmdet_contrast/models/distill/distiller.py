"""One term of distillation: what is compared, by which loss."""

from typing import List, NamedTuple, Sequence, Tuple

import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import Tensor, nn

from .source import Source, SourceRecorder

_KEYS = ('source', 'teacher_source', 'loss', 'weight', 'name', 'match_size')


class Distiller(NamedTuple):
    """One term of the loss.

    Attributes:
        name (str): In the log, after ``loss_distill_``.
        source (Source): In the student.
        teacher_source (Source): In the teacher.
        kind (str): What the loss compares: ``'features'``, ``'classes'`` or ``'boxes'``.
        weight (float): Factor of the term.
        resize (bool): Whether the teacher's maps are brought to the size of the student's.
    """

    name: str
    source: Source
    teacher_source: Source
    kind: str
    weight: float
    resize: bool

    def check_number(self, ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> None:
        """Refuse different numbers of maps.

        Args:
            ours (Sequence[Tensor]): Maps of the student.
            theirs (Sequence[Tensor]): Maps of the teacher.

        Raises:
            ValueError: If there are more of one than of the other.
        """
        if len(ours) != len(theirs):
            raise ValueError(
                f'The source {self.source.text!r} gives {len(ours)} maps and the '
                f"teacher's {self.teacher_source.text!r} {len(theirs)}: choose items, as "
                f"in '{self.source.path}[0]', or another teacher_source."
            )

    def match_size(self, mine: Tensor, other: Tensor) -> Tensor:
        """Return the teacher's map at the size of the student's.

        Args:
            mine (Tensor): (N, C, H, W) of the student.
            other (Tensor): (N, C', H', W') of the teacher.

        Returns:
            Tensor: (N, C', H, W).

        Raises:
            ValueError: If the sizes differ and the maps are not to be resized.
        """
        if mine.shape[2:] == other.shape[2:]:
            return other
        if not self.resize:
            raise ValueError(
                f'{self.source.text!r} is {tuple(mine.shape[2:])} cells large and the '
                f"teacher's {self.teacher_source.text!r} {tuple(other.shape[2:])}: choose "
                "maps of one stride, or set match_size='resize'."
            )
        return F.interpolate(other.float(), mine.shape[2:], mode='bilinear', align_corners=False)


def build_distiller(
    cfg: dict, student: nn.Module, teacher: nn.Module
) -> Tuple[Distiller, nn.Module]:
    """Build a term and its loss from a config.

    Args:
        cfg (dict): See ``distillers`` of ``DistillationDetector``.
        student (nn.Module): Where the source is.
        teacher (nn.Module): Where the teacher's source is.

    Returns:
        tuple[Distiller, nn.Module]: The term and its loss.

    Raises:
        ValueError: If a key or a source is unknown.
    """
    unknown = [key for key in cfg if key not in _KEYS]
    if unknown or 'source' not in cfg or 'loss' not in cfg:
        raise ValueError(
            f'A distiller needs source and loss, and takes {_KEYS[1:]}; got {sorted(cfg)}.'
        )
    match_size = cfg.get('match_size', 'refuse')
    if match_size not in ('refuse', 'resize'):
        raise ValueError(
            f"A distiller got match_size={match_size!r}, 'refuse' or 'resize' expected."
        )
    criterion = MODELS.build(cfg['loss'])
    distiller = Distiller(
        name=cfg.get('name') or cfg['source'].replace('.', '_').replace('[', '_').strip(']'),
        source=Source(cfg['source'], student, 'student'),
        teacher_source=Source(cfg.get('teacher_source', cfg['source']), teacher, 'teacher'),
        kind=getattr(criterion, 'distills', 'features'),
        weight=float(cfg.get('weight', 1.0)),
        resize=match_size == 'resize',
    )
    return distiller, criterion


def probe(model: nn.Module, sources: Sequence[Source]) -> List[List[Tensor]]:
    """Return what the sources give for a small image, leaving the model as it is.

    Args:
        model (nn.Module): A detector.
        sources (Sequence[Source]): Of that model.

    Returns:
        list[list[Tensor]]: The maps of each source.
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad(), SourceRecorder(model, sources) as recorder:
            feats = model.extract_feat(torch.zeros(1, 3, 128, 128))
            # a detector of two stages has none
            if hasattr(model, 'bbox_head'):
                model.bbox_head(feats)
        return [recorder.maps(source) for source in sources]
    finally:
        for module, training in modes.items():
            module.training = training
