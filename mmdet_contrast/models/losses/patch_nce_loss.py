"""PatchNCE loss of corresponding locations."""

import torch.nn.functional as F
from mmdet.registry import MODELS

from .pair_criterion import (
    PairBatch,
    PairCriterion,
    Terms,
    compared_pairs,
    compared_rows,
    counted_pairs,
    cross_entropy,
)


@MODELS.register_module()
class PatchNCELoss(PairCriterion):
    r"""PatchNCE loss (Contrastive Unpaired Translation, arXiv 2007.15651).

    Each query is to find its partner among the keys of its group: cross-entropy over the cosine
    similarities with the diagonal as target, in this one direction,

    .. math::
        l_i = -\log \frac{\exp(q_i \cdot k_i / \tau)}{\sum_{j \in G(i)} \exp(q_i \cdot k_j / \tau)}

    with :math:`G(i)` the keys of the group of :math:`i` (without groups: all), and the background,
    both without gradient. Labels do not matter in a batch; of a queue, entries of the query's class
    are left out. ``RegionContrast(scope='image')`` makes a group of
    each image, as published; ``scope='batch'`` compares with the locations of the whole batch.

    Args:
        temperature (float): Temperature :math:`\tau`.
        loss_weight (float): Factor of the result.

    Examples:
        >>> loss = PatchNCELoss(temperature=0.07)
        >>> query, key = torch.randn(2, 512, 256)
        >>> loss(query, key, groups=torch.arange(2).repeat_interleave(256))
    """

    has_chance_level = True

    def __init__(self, temperature: float = 0.07, loss_weight: float = 1.0) -> None:
        super().__init__(loss_weight)
        self.temperature = temperature

    def terms(self, batch: PairBatch) -> Terms:
        """Compute one term for each pair; see the base class."""
        count = batch.num_pairs
        rows = F.normalize(batch.rows, dim=2)
        keys = rows[:, count:].detach()
        logits = (rows[:, :count] / self.temperature) @ keys.transpose(1, 2)
        candidates = compared_rows(compared_pairs(batch, same_class=True), batch, views=1)
        candidates.diagonal(dim1=1, dim2=2).fill_(True)
        values = cross_entropy(logits, candidates)
        return Terms(values, counted_pairs(batch), candidates, logits)
