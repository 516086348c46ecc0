"""Supervised contrastive loss (SupCon)."""

from mmdet.registry import MODELS
from torch import Tensor

from ._contrast_terms import two_view_terms
from ._pairs import PairCriterion, Pairs, check_temperature


@MODELS.register_module()
class SupConLoss(PairCriterion):
    r"""Supervised contrastive loss over pairs of embeddings (arXiv 2004.11362, equation 2).

    The 2M embeddings are all anchors. Their positives :math:`P(i)` are the partner and all
    embeddings of the same label; every other embedding in scope, :math:`A(i)`, is in the
    denominator (the paper's :math:`L^{sup}_{out}`):

    .. math::
        l_i = -\frac{1}{|P(i)|} \sum_{p \in P(i)}
              \log \frac{\exp(s_{ip} / \tau)}{\sum_{a \in A(i)} \exp(s_{ia} / \tau)}

    with cosine similarity :math:`s`. Where all labels differ, or are -1 (unknown), it is NT-Xent
    with ``negatives='all'``. Background embeddings are in denominators only.

    The value is that of pytorch-metric-learning; the authors' own code multiplies by
    ``temperature / base_temperature``, which ``loss_weight`` can do.

    Args:
        temperature (float): Temperature :math:`\tau`, > 0.
        loss_weight (float): Factor of the result.
        max_elements (int): Size of the similarity matrix (rows times columns) up to which it is
            kept for the backward pass; a larger one is made twice and never held whole.

    Examples:
        >>> loss = SupConLoss(temperature=0.1)
        >>> query, key = torch.randn(8, 128), torch.randn(8, 128)
        >>> loss(query, key, labels=torch.randint(3, (8,)), weights=torch.rand(8))
    """

    def __init__(
        self, temperature: float = 0.1, loss_weight: float = 1.0, max_elements: int = 2**28
    ) -> None:
        super().__init__(loss_weight)
        check_temperature('SupConLoss', temperature)
        self.temperature = temperature
        self.max_elements = max_elements

    def prepare(self, pairs: Pairs) -> Pairs:
        """Require labels; see the base class."""
        if pairs.labels is None:
            raise ValueError(
                'SupConLoss got no labels; pass the class index of each pair, -1 where it is '
                "unknown, or use NTXentLoss(negatives='all')."
            )
        return pairs

    def terms(self, pairs: Pairs) -> Tensor:
        """Compute the terms of the anchors; see the base class."""
        return two_view_terms(
            pairs.query,
            pairs.key,
            pairs.labels,
            pairs.groups,
            temperature=self.temperature,
            same_label='positive',
            anchors=pairs.anchors,
            background=pairs.background,
            background_mask=pairs.background_mask,
            max_elements=self.max_elements,
        )
