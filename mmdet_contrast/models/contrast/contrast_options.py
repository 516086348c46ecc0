"""Which options of the contrastive branch go together."""

from typing import Optional

from ..losses import PairCriterion
from .pairs import COLLECTORS

CHOICES = dict(
    key_source=tuple(COLLECTORS),
    assign=('all', 'scale'),
    scope=('image', 'batch', 'all_ranks'),
    background=('never', 'when_needed', 'always'),
    pair_weights=(None, 'iou', 'area'),
)


def check_options(
    key_source: str,
    sampler: Optional[dict],
    assign: str,
    scope: str,
    background: str,
    num_background: int,
    box_jitter: float,
    pair_weights: Optional[str],
) -> None:
    """Make sure that the options of :class:`RegionContrast` have a meaning together.

    Args:
        key_source (str): Where the second embedding of an object comes from, see
            :class:`RegionContrast`, as for the others.
        sampler (dict, optional): What is compared in place of boxes.
        assign (str): Levels of a box.
        scope (str): Where negatives come from.
        background (str): When background regions are negatives.
        num_background (int): How many.
        box_jitter (float): Share of the side by which corners are moved.
        pair_weights (str, optional): How much a pair counts.

    Raises:
        ValueError: If one has an unknown value, or no effect beside the others.
    """
    for name, value in (
        ('key_source', key_source),
        ('assign', assign),
        ('scope', scope),
        ('background', background),
        ('pair_weights', pair_weights),
    ):
        if value not in CHOICES[name]:
            raise ValueError(
                f'RegionContrast got {name}={value!r}, one of {CHOICES[name]} expected.'
            )
    if num_background < 1 and background != 'never':
        raise ValueError(
            f'RegionContrast got num_background={num_background}, at least 1 expected: to do '
            "without background regions set contrast.background='never'."
        )
    if not 0 <= box_jitter < 0.5:
        raise ValueError(
            f'RegionContrast got box_jitter={box_jitter}, a share of the side from 0 to below '
            '0.5 expected: further, corners would swap.'
        )
    if pair_weights == 'iou' and box_jitter == 0:
        raise ValueError(
            "RegionContrast got pair_weights='iou' without box_jitter: the boxes are the ground "
            'truth and all weights 1. Set contrast.box_jitter, e.g. to 0.1.'
        )
    if key_source != 'view' and box_jitter == 0 and sampler is None:
        raise ValueError(
            f'RegionContrast got key_source={key_source!r} without box_jitter: in one image an '
            "object's two regions would be one and the same. Set contrast.box_jitter, e.g. to 0.1."
        )
    if sampler is None:
        return
    wrong = {
        f'key_source={key_source!r}': key_source != 'view',
        f'assign={assign!r}': assign != 'all',
        f'background={background!r}': background == 'always',
        f'box_jitter={box_jitter}': box_jitter > 0,
        f'pair_weights={pair_weights!r}': pair_weights is not None,
    }
    given = ' and '.join(name for name, is_wrong in wrong.items() if is_wrong)
    if given:
        raise ValueError(
            f'RegionContrast got a sampler together with {given}, which is for boxes: leave it at '
            'its default, or leave out contrast.sampler.'
        )


def check_negatives(
    criterion: PairCriterion, scope: str, background: str, queue: Optional[dict]
) -> None:
    """Make sure that negatives are asked for only where, and as, the criterion uses them.

    Args:
        criterion (PairCriterion): The loss.
        scope (str): Where negatives come from.
        background (str): When background regions are negatives.
        queue (dict, optional): Config of the queue.

    Raises:
        ValueError: If there would be negatives for a loss that has none, or others than those of
            its own setting.
    """
    if criterion.needs_groups is not None and criterion.needs_groups != (scope == 'image'):
        name, negatives = type(criterion).__name__, getattr(criterion, 'negatives', None)
        what, remedy = 'of all images', "contrast.scope to 'batch'"
        if criterion.needs_groups:
            what, remedy = 'of the same image alone', "contrast.scope to 'image'"
        raise ValueError(
            f'RegionContrast got scope={scope!r} and {name}(negatives={negatives!r}), which is to '
            f'have negatives {what}: set {remedy}, or contrast.criterion.negatives to '
            f'{"batch" if criterion.needs_groups else "image"!r}.'
        )
    if criterion.uses_negatives:
        return
    for given, is_given, remedy in (
        ('a queue', queue is not None, 'set contrast.queue=None'),
        ("background='always'", background == 'always', "set contrast.background='never'"),
    ):
        if is_given:
            raise ValueError(
                f'RegionContrast got {given} and {type(criterion).__name__}, which has no '
                f'negatives: {remedy}, or take another criterion.'
            )
