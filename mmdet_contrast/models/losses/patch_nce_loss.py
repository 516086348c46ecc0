"""PatchNCE loss of corresponding locations."""

from mmdet.registry import MODELS
from torch import Tensor

from ._contrast_terms import one_view_terms
from ._pairs import PairCriterion, Pairs, check_choice, check_temperature

NEGATIVES = ('image', 'batch')


@MODELS.register_module()
class PatchNCELoss(PairCriterion):
    r"""PatchNCE loss (Contrastive Unpaired Translation, arXiv 2007.15651).

    Each query is to find its partner among the keys of its image: cross-entropy over the cosine
    similarities with the diagonal as target, in this one direction,

    .. math::
        l_i = -\log \frac{\exp(q_i \cdot k_i / \tau)}{\sum_{j \in G(i)} \exp(q_i \cdot k_j / \tau)}

    with :math:`G(i)` the rows of the group of :math:`i`, and its background embeddings. Labels
    are not used.

    Args:
        temperature (float): Temperature :math:`\tau`, > 0.
        negatives (str): ``'image'``: the keys of the query's own group (without groups: all).
            ``'batch'``: all keys, whatever the groups. :class:`RegionContrast` takes the first with
            ``scope='image'`` alone, the second with the other scopes.
        detach_key (bool): Whether keys and background are targets without gradient, as published.
        loss_weight (float): Factor of the result.
        max_elements (int): Size of the similarity matrix (rows times columns) up to which it is
            kept for the backward pass; a larger one is made twice and never held whole.

    Examples:
        >>> loss = PatchNCELoss(temperature=0.07)
        >>> query, key = torch.randn(2, 512, 256)
        >>> loss(query, key, groups=torch.arange(2).repeat_interleave(256))
    """

    # avg_factor counts both embeddings of a pair: the base class halves it, so that with twice
    # the number of pairs the result is their mean, as it is for the losses with two terms
    terms_of_pair = 1

    def __init__(
        self,
        temperature: float = 0.07,
        negatives: str = 'image',
        detach_key: bool = True,
        loss_weight: float = 1.0,
        max_elements: int = 2**28,
    ) -> None:
        super().__init__(loss_weight)
        check_temperature('PatchNCELoss', temperature)
        check_choice('PatchNCELoss', 'negatives', negatives, NEGATIVES)
        self.temperature = temperature
        self.negatives = negatives
        self.needs_groups = negatives == 'image'
        self.detach_key = detach_key
        self.max_elements = max_elements

    def prepare(self, pairs: Pairs) -> Pairs:
        """Detach keys and background where configured; see the base class."""
        if not self.detach_key:
            return pairs
        background = None if pairs.background is None else pairs.background.detach()
        return pairs._replace(key=pairs.key.detach(), background=background)

    def terms(self, pairs: Pairs) -> Tensor:
        """Compute the term of every anchor pair; see the base class."""
        return one_view_terms(
            pairs.query,
            pairs.key,
            pairs.groups if self.negatives == 'image' else None,
            temperature=self.temperature,
            anchors=pairs.anchors,
            background=pairs.background,
            background_mask=pairs.background_mask,
            max_elements=self.max_elements,
        )
