"""One stage of staged training: what is frozen, how long, and how it is trained afterwards."""

from dataclasses import dataclass
from typing import Any, Dict, Optional, Sequence, Tuple, Union

KEYS = ('modules', 'freeze_epochs', 'freeze_iters', 'lr_mult', 'warmup_iters')
DEFAULT_EPOCHS = 5


@dataclass(frozen=True)
class FreezeStage:
    """Modules, how long they are frozen, and their learning rate afterwards.

    Args:
        modules (tuple[str]): Dotted names of modules.
        freeze_epochs (int, optional): Epochs that they are frozen for; -1: always. None: counted
            in iterations.
        freeze_iters (int, optional): The same in iterations.
        lr_mult (float): Factor on their learning rate once they are trained.
        warmup_iters (int): Iterations in which that factor rises linearly to ``lr_mult``.
    """

    modules: Tuple[str, ...]
    freeze_epochs: Optional[int]
    freeze_iters: Optional[int]
    lr_mult: float
    warmup_iters: int

    @classmethod
    def parse(cls, config: Dict[str, Any], where: str) -> 'FreezeStage':
        """Check a stage as a config gives it.

        Args:
            config (dict): Keys ``modules``, ``freeze_epochs`` or ``freeze_iters``, ``lr_mult``
                and ``warmup_iters``.
            where (str): What to call it in errors.

        Returns:
            FreezeStage: The stage.

        Raises:
            ValueError: If a key is unknown or a value is not possible.
        """
        unknown = sorted(set(config) - set(KEYS))
        if unknown:
            raise ValueError(
                f'{where} has the unknown keys {", ".join(map(repr, unknown))}: expected are '
                f'{", ".join(KEYS)}.'
            )
        epochs, iters = config.get('freeze_epochs'), config.get('freeze_iters')
        if epochs is not None and iters is not None:
            raise ValueError(
                f'{where} got freeze_epochs={epochs!r} and freeze_iters={iters!r}: give one of '
                'the two.'
            )
        if iters is None:
            epochs = _length(DEFAULT_EPOCHS if epochs is None else epochs, 'freeze_epochs', where)
        else:
            iters = _length(iters, 'freeze_iters', where)
        lr_mult, warmup_iters = config.get('lr_mult', 1.0), config.get('warmup_iters', 0)
        if isinstance(lr_mult, bool) or not isinstance(lr_mult, (int, float)) or not lr_mult > 0:
            raise ValueError(
                f'{where} got lr_mult={lr_mult!r}, but a number over 0 is expected '
                '(freeze_epochs=-1 freezes for good).'
            )
        if _length(warmup_iters, 'warmup_iters', where) < 0:
            raise ValueError(f'{where} got warmup_iters=-1, but a number from 0 on is expected.')
        modules = _names(config.get('modules', ()), where)
        return cls(modules, epochs, iters, float(lr_mult), warmup_iters)

    @property
    def always(self) -> bool:
        """Whether the modules are frozen for good."""
        return -1 in (self.freeze_epochs, self.freeze_iters)

    @property
    def changes_rate(self) -> bool:
        """Whether the learning rate after unfreezing is another than the scheduled one."""
        return not self.always and (self.lr_mult != 1 or self.warmup_iters > 0)

    def is_frozen(self, epoch: int, iteration: int) -> bool:
        """Tell whether the modules are frozen at an iteration (both counted from 0)."""
        if self.always:
            return True
        if self.freeze_iters is not None:
            return iteration < self.freeze_iters
        return epoch < self.freeze_epochs

    def end(self, epoch_length: int) -> float:
        """Return the first iteration that trains the modules; infinity if none does."""
        if self.always:
            return float('inf')
        if self.freeze_iters is not None:
            return self.freeze_iters
        return self.freeze_epochs * epoch_length

    def rate_factor(self, iteration: int, epoch_length: int) -> float:
        """Return the factor on the scheduled learning rate at an iteration."""
        done = iteration - self.end(epoch_length) + 1
        if not 0 < done < self.warmup_iters:
            return self.lr_mult
        return self.lr_mult * done / self.warmup_iters

    def until(self) -> str:
        """Say how long the modules are frozen."""
        if self.always:
            return 'for good'
        if self.freeze_iters is not None:
            return f'until iteration {self.freeze_iters}'
        return f'until epoch {self.freeze_epochs}'


def _length(value: Any, key: str, where: str) -> int:
    """Check a number of epochs or iterations."""
    if isinstance(value, bool) or not isinstance(value, int) or value < -1:
        raise ValueError(
            f'{where} got {key}={value!r}, but a whole number is expected: from 0 on, or -1 for '
            'always.'
        )
    return value


def _names(value: Union[str, Sequence[str]], where: str) -> Tuple[str, ...]:
    """Check names of modules; a single one may be given as it is."""
    names = (value,) if isinstance(value, str) else value
    if (
        not isinstance(names, (list, tuple))
        or not names
        or not all(isinstance(name, str) and name for name in names)
    ):
        raise ValueError(
            f"{where} got modules={value!r}, but names of modules are expected, as ('backbone',)."
        )
    return tuple(names)
