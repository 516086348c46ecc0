"""What a conversion of Ultralytics weights did, key by key."""

from typing import Dict, List, NamedTuple, Tuple

__all__ = ['UltralyticsReport']


class UltralyticsReport(NamedTuple):
    """What :func:`~mmdet_contrast.utils.ultralytics.map_ultralytics_state_dict` did.

    Attributes:
        size (str): Size of the checkpoint: 'n', 's', 'm', 'l', 'x', or its numbers if it is none.
        num_classes (int): Number of classes of the checkpoint, 0 if it has no class head.
        mapped (Dict[str, str]): Key of the checkpoint → key of the result.
        skipped (Dict[str, str]): Key of the checkpoint → why it is not in the result.
        mismatched (Dict[str, Tuple[tuple, tuple]]): Key of the model → the shape in the checkpoint
            and in the model, for weights of the class head that were left out.
        missing (List[str]): Keys of the model, in the parts asked for, that the result does not
            give; filled only if a model was given to compare with.
        messages (List[str]): Whole sentences on what a reader has to know.
    """

    size: str
    num_classes: int
    mapped: Dict[str, str]
    skipped: Dict[str, str]
    mismatched: Dict[str, Tuple[tuple, tuple]]
    missing: List[str]
    messages: List[str]

    def __str__(self) -> str:
        classes = f', {self.num_classes} classes' if self.num_classes else ''
        lines = [
            f'YOLOv8{self.size}{classes}: {len(self.mapped)} keys mapped, '
            f'{len(self.skipped)} skipped, {len(self.mismatched)} of another shape, '
            f'{len(self.missing)} of the model not given'
        ]
        reasons: Dict[str, List[str]] = {}
        for key, reason in self.skipped.items():
            reasons.setdefault(reason, []).append(key)
        for reason, keys in reasons.items():
            named = ', '.join(keys) if len(keys) <= 3 else f'{keys[0]} … {keys[-1]}'
            lines.append(f'  skipped {len(keys)}: {reason} ({named})')
        for key, (ours, theirs) in self.mismatched.items():
            lines.append(f'  shape of {key}: {ours} in the checkpoint, {theirs} in the model')
        lines += [f'  not given: {key}' for key in self.missing]
        return '\n'.join(lines + self.messages)
