"""Classes of a teacher in a student, by name, and a start from the teacher's weights."""

from typing import Dict, List, NamedTuple, Sequence

import torch
from torch import Tensor, nn


def map_classes(teacher_classes: Sequence[str], student_classes: Sequence[str]) -> List[int]:
    """Find the teacher's classes among those of the student.

    Args:
        teacher_classes (Sequence[str]): Names of the teacher's classes, by index.
        student_classes (Sequence[str]): Names of the student's classes, by index.

    Returns:
        list[int]: Index of each of the teacher's classes among those of the student.

    Raises:
        ValueError: If the student has no class of such a name, or two have the same.

    Examples:
        >>> map_classes(('cat', 'dog'), ('bird', 'dog', 'cat'))
        [2, 1]
    """
    names, known = list(teacher_classes), list(student_classes)
    if len(set(names)) < len(names) or not set(names) <= set(known):
        raise ValueError(
            f'the classes {tuple(names)} of the teacher have to be different ones of the student, '
            f"{tuple(known)}: give teacher_classes the student's names of them, in the teacher's "
            'order.'
        )
    return [known.index(name) for name in names]


class TransferReport(NamedTuple):
    """What became of the student's weights."""

    copied: List[str]
    """Copied whole."""
    by_class: List[str]
    """The rows of shared classes copied, those of new classes left as initialised."""
    kept: List[str]
    """Left as initialised: the teacher has none of that name."""
    unlike: List[str]
    """Left as initialised: the teacher's of that name has another shape."""

    def __str__(self) -> str:
        """Return a one-line summary."""
        text = (
            f'Started from the teacher: {len(self.copied)} tensors copied, {len(self.by_class)} '
            f'class by class{_some(self.by_class)}, {len(self.kept)} left as initialised'
            f'{_some(self.kept)}'
        )
        if self.unlike:
            text += (
                f'; {len(self.unlike)} more{_some(self.unlike)} left as initialised because the '
                "teacher's have another shape: there the student knows nothing yet"
            )
        return text + '.'


@torch.no_grad()
def transfer_weights(
    student: nn.Module,
    teacher_state: Dict[str, Tensor],
    classes: Sequence[int],
    num_student_classes: int,
) -> TransferReport:
    """Copy the teacher's weights into the student, class rows by class.

    A tensor of the same name and shape is copied. One whose rows belong to classes, that is, whose
    number of rows is the same multiple of the number of classes in both, is copied row by row.

    Args:
        student (nn.Module): The student's detector; changed in place.
        teacher_state (dict[str, Tensor]): The teacher's ``state_dict``.
        classes (Sequence[int]): What :func:`map_classes` returned.
        num_student_classes (int): Number of the student's classes.

    Returns:
        TransferReport: What was copied.

    Raises:
        ValueError: If nothing could be copied, or there are as many classes, and not the same in
            the same order: then no shape tells which rows belong to classes.
    """
    num_teacher_classes = len(classes)
    alike = list(classes) == list(range(num_student_classes))
    if num_teacher_classes == num_student_classes and not alike:
        raise ValueError(
            f'Teacher and student have {num_student_classes} classes each, but not the same ones '
            "in the same order: give the student's metainfo the teacher's order, or set "
            'start_from_teacher=False.'
        )
    report = TransferReport([], [], [], [])
    slots = torch.tensor(list(classes), dtype=torch.long)
    for name, target in student.state_dict().items():
        source = teacher_state.get(name)
        if source is None:
            report.kept.append(name)
            continue
        source = source.to(target.device)
        if _is_by_class(source, target, num_teacher_classes, num_student_classes):
            anchors = len(target) // num_student_classes
            new = target.reshape(anchors, num_student_classes, *target.shape[1:]).clone()
            old = source.reshape(anchors, num_teacher_classes, *source.shape[1:]).to(target.dtype)
            new[:, slots] = old
            target.copy_(new.reshape(target.shape))
            report.by_class.append(name)
        elif source.shape == target.shape:
            target.copy_(source)
            report.copied.append(name)
        else:
            report.unlike.append(name)
    # counters of batch normalisation have one shape in all architectures
    if not any(teacher_state[name].dim() for name in report.copied):
        raise ValueError(
            "None of the teacher's weights has the name and shape of one of the student's: set "
            'start_from_teacher=False, or take a student of the same architecture.'
        )
    return report


def _some(names: Sequence[str]) -> str:
    """Name the first in brackets, if there are any."""
    return f' ({", ".join(names[:6])}{" …" if len(names) > 6 else ""})' if names else ''


def _is_by_class(source: Tensor, target: Tensor, teacher: int, student: int) -> bool:
    """Tell whether rows of two tensors belong to classes, of which there are unequal numbers."""
    if source.dim() == 0 or source.dim() != target.dim() or source.shape == target.shape:
        return False
    if source.shape[1:] != target.shape[1:]:
        return False
    return (
        len(source) % teacher == 0
        and len(target) % student == 0
        and len(source) // teacher == len(target) // student
    )
