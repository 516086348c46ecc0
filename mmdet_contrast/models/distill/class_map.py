"""Classes of a teacher and of a student, by name."""

from typing import List, Mapping, Optional, Sequence, Tuple

from torch import Tensor


def map_classes(
    teacher_classes: Sequence[str],
    student_classes: Sequence[str],
    class_map: Optional[Mapping[str, Optional[str]]] = None,
) -> Tuple[List[int], List[int]]:
    """Pair the classes that teacher and student have in common.

    Args:
        teacher_classes (Sequence[str]): Names of the teacher's classes, by index.
        student_classes (Sequence[str]): Names of the student's classes, by index.
        class_map (Mapping[str, str | None], optional): The student's name of teacher's classes
            that it calls otherwise; None leaves a class of the teacher out.

    Returns:
        tuple[list[int], list[int]]: Indices into the teacher's classes, ascending, and the
        corresponding indices into the student's.

    Raises:
        ValueError: If a name is unknown, a class of the teacher has no counterpart, or two have
            the same.

    Examples:
        >>> map_classes(('cat', 'dog'), ('bird', 'dog', 'cat'))
        ([0, 1], [2, 1])
    """
    class_map = dict(class_map or {})
    unknown = [name for name in class_map if name not in teacher_classes]
    if unknown:
        raise ValueError(
            f'class_map names {unknown}, which are no classes of the teacher: its classes are '
            f'{tuple(teacher_classes)}.'
        )
    teacher, student = [], []
    for index, name in enumerate(teacher_classes):
        wanted = class_map.get(name, name)
        if wanted is None:
            continue
        if wanted not in student_classes:
            raise ValueError(
                f'The teacher knows {name!r}, and the student has no class {wanted!r}, only '
                f'{tuple(student_classes)}: add it to the metainfo of the data, or give '
                f"class_map=dict({{{name!r}: the student's name, or None to leave it out}})."
            )
        teacher.append(index)
        student.append(list(student_classes).index(wanted))
    if len(set(student)) < len(student):
        raise ValueError(
            f'class_map={class_map} gives two classes of the teacher the same class of the student.'
        )
    return teacher, student


def select_classes(logits: Tensor, num_classes: int, index: Sequence[int]) -> Tensor:
    """Return the logits of some classes, each anchor of a cell by itself.

    Args:
        logits (Tensor): (N, A * C, H, W) class map of a head with A anchors in a cell.
        num_classes (int): C, the head's ``cls_out_channels``.
        index (Sequence[int]): The T classes wanted.

    Returns:
        Tensor: (N * A, T, H, W); no copy where all classes are wanted in their order.
    """
    grouped = _by_anchor(logits, num_classes)
    return grouped if list(index) == list(range(num_classes)) else grouped[:, index]


def highest_scores(logits: Tensor, num_classes: int) -> Tensor:
    """Return the highest score of each anchor.

    Args:
        logits (Tensor): (N, A * C, H, W) class map of a head with A anchors in a cell.
        num_classes (int): C, the head's ``cls_out_channels``.

    Returns:
        Tensor: (N * A, H, W) in float32, from 0 to 1.
    """
    return _by_anchor(logits, num_classes).float().amax(dim=1).sigmoid()


def _by_anchor(logits: Tensor, num_classes: int) -> Tensor:
    """Return (N * A, C, H, W)."""
    batch, channels, height, width = logits.shape
    return logits.reshape(batch * (channels // num_classes), num_classes, height, width)
