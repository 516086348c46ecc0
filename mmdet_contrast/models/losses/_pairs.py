"""What the criteria over pairs of embeddings share: their call, its checks and the mean."""

from typing import NamedTuple, Optional, Union

import torch
from torch import Tensor, nn


class Pairs(NamedTuple):
    """What a criterion compares; the rows of query and key are partners."""

    query: Tensor  # (M, D)
    key: Tensor  # (M, D)
    labels: Optional[Tensor]  # (M,) class indices, -1 where unknown
    groups: Optional[Tensor]  # (M,); only rows of one group are compared
    anchors: Optional[Tensor]  # (M,) bool
    background: Optional[Tensor]  # (K, D), negatives only
    background_mask: Optional[Tensor]  # (M, K) bool


class PairCriterion(nn.Module):
    """Base of the losses over pairs of embeddings: checks, precision, weights and the mean.

    A loss derives from it and computes ``terms``. ``RegionContrast`` calls every one alike.

    Args:
        loss_weight (float): Factor of the result.
    """

    terms_of_pair = 2
    """Terms that ``terms`` returns for each anchor pair."""

    uses_negatives = True
    """Whether other pairs than the anchor, background or a queue change the value."""

    needs_groups: Optional[bool] = None
    """Whether it compares within images alone (True), or across them (False); None: as it is
    told by ``groups``."""

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        labels: Optional[Tensor] = None,
        groups: Optional[Tensor] = None,
        anchors: Optional[Tensor] = None,
        background: Optional[Tensor] = None,
        background_mask: Optional[Tensor] = None,
        weights: Optional[Tensor] = None,
        avg_factor: Union[float, Tensor, None] = None,
    ) -> Tensor:
        """Compute the (weighted) mean of the anchors' terms.

        Args:
            query (Tensor): (M, D) embeddings of the first view; M may be 0.
            key (Tensor): (M, D) embeddings of the second view, row by row the partners.
            labels (Tensor, optional): (M,) class indices, -1 where the class is unknown: such a
                row is of another class than every other one.
            groups (Tensor, optional): (M,) image indices; only embeddings of one group are
                compared. Defaults to one group.
            anchors (Tensor, optional): (M,) bool, the pairs that are anchors; the others are only
                compared with. Defaults to all.
            background (Tensor, optional): (K, D) embeddings that are negatives only.
            background_mask (Tensor, optional): (M, K) bool, which pair is compared with which of
                them; defaults to all with all.
            weights (Tensor, optional): (M,) factors >= 0 of the pairs' terms; get no gradient.
                Defaults to 1. A mean is then ``sum(w * l) / sum(w)``.
            avg_factor (float | Tensor, optional): Divisor of the (weighted) sum instead. It counts
                both embeddings of each anchor pair: 2M for the mean over M pairs.

        Returns:
            Tensor: Scalar in float32 or float64; 0, finite and connected to the inputs and to the
            loss's own parameters, where there is no anchor or no weight.

        Raises:
            ValueError: If shapes or types do not fit, or labels that the loss needs are missing.
        """
        pairs = Pairs(query, key, labels, groups, anchors, background, background_mask)
        self._check(pairs, weights, avg_factor)
        pairs = self.prepare(pairs)
        if len(query) == 0 or (anchors is not None and not anchors.any()):
            return self._zero(pairs)
        with torch.autocast(device_type=query.device.type, enabled=False):
            terms = self.terms(pairs)
            divisor = terms.new_tensor(float(len(terms)))
            if weights is not None:
                chosen = weights if anchors is None else weights[anchors]
                factors = chosen.detach().to(terms).repeat(self.terms_of_pair)
                terms = terms * factors
                # with no weight at all the sum is 0, and so is the mean
                total = factors.sum()
                divisor = torch.where(total > 0, total, torch.ones_like(total))
            if avg_factor is not None:
                divisor = avg_factor * (self.terms_of_pair / 2)
            return self.loss_weight * (terms.sum() / divisor)

    def prepare(self, pairs: Pairs) -> Pairs:
        """Check what this loss alone asks for; detach or drop what it gives no gradient to.

        A rank without anchors must be connected to the same tensors as the others: where rows
        were gathered from all ranks their backward pass is a collective operation.

        Args:
            pairs (Pairs): The call's arguments.

        Returns:
            Pairs: What ``terms`` gets.
        """
        return pairs

    def terms(self, pairs: Pairs) -> Tensor:
        """Compute the terms of the anchors, outside of autocast.

        Args:
            pairs (Pairs): What is compared, with at least one of the A anchors.

        Returns:
            Tensor: (terms_of_pair * A,); those of all queries, then those of all keys.
        """
        raise NotImplementedError

    def _zero(self, pairs: Pairs) -> Tensor:
        """Return a zero that is finite whatever the values and connected to all that is used."""
        used = [pairs.query, pairs.key, pairs.background, *self.parameters()]
        zero = sum(x.reshape(-1)[:0].sum() for x in used if x is not None)
        return zero.to(torch.promote_types(zero.dtype, torch.float32))

    def _check(
        self, pairs: Pairs, weights: Optional[Tensor], avg_factor: Union[float, Tensor, None]
    ) -> None:
        """Refuse what does not fit together."""
        name, query, key = type(self).__name__, pairs.query, pairs.key
        if query.dim() != 2 or query.shape != key.shape or not query.is_floating_point():
            raise ValueError(
                f'{name} got query of shape {tuple(query.shape)} ({query.dtype}) and key of shape '
                f'{tuple(key.shape)} ({key.dtype}), two tensors of floats of one shape (M, D) '
                'expected.'
            )
        by_row = dict(
            labels=pairs.labels, groups=pairs.groups, anchors=pairs.anchors, weights=weights
        )
        for argument, value in by_row.items():
            if value is not None and value.shape != query.shape[:1]:
                raise ValueError(
                    f'{name} got {argument} of shape {tuple(value.shape)}, ({len(query)},) '
                    'expected: one entry for each pair.'
                )
        background, mask = pairs.background, pairs.background_mask
        if background is not None and (
            background.dim() != 2 or background.shape[1] != query.shape[1]
        ):
            raise ValueError(
                f'{name} got background of shape {tuple(background.shape)}, (K, '
                f'{query.shape[1]}) expected: embeddings as long as those of the pairs.'
            )
        if mask is not None:
            count = None if background is None else len(background)
            if mask.shape != (len(query), count):
                raise ValueError(
                    f'{name} got background_mask of shape {tuple(mask.shape)} for {len(query)} '
                    f'pairs and {count or "no"} background embeddings: give it one row for each '
                    'pair and one column for each of them.'
                )
        for argument, value in (('anchors', pairs.anchors), ('background_mask', mask)):
            if value is not None and value.dtype != torch.bool:
                raise ValueError(
                    f'{name} got {argument} of type {value.dtype}, torch.bool expected: True '
                    'where it applies.'
                )
        if isinstance(avg_factor, (int, float)) and not avg_factor > 0:
            raise ValueError(
                f'{name} got avg_factor={avg_factor}, a number above 0 expected: twice the number '
                'of pairs gives their mean.'
            )


def check_temperature(name: str, temperature: float) -> None:
    """Refuse a temperature that nothing can be divided by.

    Args:
        name (str): Name of the loss.
        temperature (float): Divisor of the similarities.

    Raises:
        ValueError: If it is not above 0.
    """
    if not temperature > 0:
        raise ValueError(f'{name} got temperature={temperature}, a number above 0 expected.')


def check_choice(name: str, option: str, value: object, choices: tuple) -> None:
    """Refuse a value that is none of the choices.

    Args:
        name (str): Name of the loss.
        option (str): Name of its argument.
        value (object): What was given.
        choices (tuple): What is possible.

    Raises:
        ValueError: If it is none of them.
    """
    if value not in choices:
        raise ValueError(f'{name} got {option}={value!r}, one of {choices} expected.')
