"""Accuracy of labels."""

from typing import Dict, List, Sequence

import torch
from mmdet.registry import METRICS
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger


@METRICS.register_module()
class LabelAccuracy(BaseMetric):
    """Top-k accuracy of what :class:`LinearClassifier` predicts.

    Returns (with the prefix ``accuracy/``) ``top1``, ``top5`` … in [0, 1] and ``class_mean``: the
    top-1 accuracy of each class that occurs, averaged, which a frequent class does not dominate.

    Args:
        topk (Sequence[int]): Numbers of classes the truth may be among; clamped to the number of
            classes. Defaults to (1, 5).
        **kwargs: As in MMEngine's ``BaseMetric``.

    Examples:
        >>> val_evaluator = dict(type='LabelAccuracy', topk=(1,))
    """

    default_prefix = 'accuracy'

    def __init__(self, topk: Sequence[int] = (1, 5), **kwargs) -> None:
        super().__init__(**kwargs)
        self.topk = tuple(topk)

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keep the rank of the truth of everything in a batch.

        Args:
            data_batch (dict): Not used.
            data_samples (Sequence[dict]): With ``class_scores`` (K, C) and ``class_labels`` (K,).
        """
        for sample in data_samples:
            scores, labels = sample['class_scores'].cpu(), sample['class_labels'].cpu()
            own = scores.gather(1, labels[:, None])
            # a class that is not clearly behind counts before: neither constant scores nor NaN are
            # a success
            ranks = (~(scores < own)).sum(dim=1)
            # one entry for a sample, so that those that fill up the last batch can be dropped
            self.results.append((labels, ranks))

    def compute_metrics(self, results: List[tuple]) -> Dict[str, float]:
        """Compute the accuracies; none, with a warning, if nothing has a label."""
        labels = torch.cat([x for x, _ in results]) if results else torch.zeros(0)
        if not len(labels):
            MMLogger.get_current_instance().warning(
                'LabelAccuracy found no label and returns no accuracy: check the ann_file or '
                'data_root of the data set, and its classes.'
            )
            return {}
        ranks = torch.cat([x for _, x in results])
        values = {f'top{n}': (ranks <= n).double().mean().item() for n in self.topk}
        means = [(ranks[labels == x] == 1).double().mean() for x in labels.unique()]
        values['class_mean'] = torch.stack(means).mean().item()
        return values
