"""The losses over pairs of embeddings as slow loops: one anchor and one candidate at a time.

Each returns the mean over the anchors, or over ``classes`` of the mean over their anchors, and the
same mean if all embeddings were alike.
"""

import math
from typing import Callable, List, Optional, Sequence, Tuple

import torch
from torch import Tensor

from mmdet_contrast.models.losses import PairBatch, PairCriterion


def nt_xent(
    query: Tensor,
    key: Tensor,
    labels: Optional[Sequence[int]] = None,
    groups: Optional[Sequence[int]] = None,
    background: Sequence[Tensor] = (),
    use: Optional[Sequence[Sequence[bool]]] = None,
    classes: Optional[Sequence[int]] = None,
    temperature: float = 0.5,
    negatives: str = 'other_class',
) -> Tuple[Tensor, float]:
    """NT-Xent of M pairs: every query and every key is to find its partner."""
    count, points, extra = len(query), [_unit(x) for x in (*query, *key)], _units(background)
    terms, chances = [query.sum() * 0], [0.0]
    for i, anchor in enumerate(points):
        row, candidates = i % count, [points[(i + count) % (2 * count)]]
        for k in _others(i, count, groups):
            if negatives == 'all' or not _same(labels, row, k % count):
                candidates.append(points[k])
        candidates += [x for k, x in enumerate(extra) if use is None or use[row][k]]
        _append(terms, chances, anchor, candidates, [0], temperature)
    return _means(terms, chances, classes)


def supcon(
    query: Tensor,
    key: Tensor,
    labels: Optional[Sequence[int]] = None,
    groups: Optional[Sequence[int]] = None,
    background: Sequence[Tensor] = (),
    use: Optional[Sequence[Sequence[bool]]] = None,
    classes: Optional[Sequence[int]] = None,
    temperature: float = 0.1,
) -> Tuple[Tensor, float]:
    """SupCon of M pairs: every query and every key is to find all of its class."""
    count, points, extra = len(query), [_unit(x) for x in (*query, *key)], _units(background)
    terms, chances = [query.sum() * 0], [0.0]
    for i, anchor in enumerate(points):
        row, candidates, positives = i % count, [points[(i + count) % (2 * count)]], [0]
        for k in _others(i, count, groups):
            if _same(labels, row, k % count):
                positives.append(len(candidates))
            candidates.append(points[k])
        candidates += [x for k, x in enumerate(extra) if use is None or use[row][k]]
        _append(terms, chances, anchor, candidates, positives, temperature)
    return _means(terms, chances, classes)


def patch_nce(
    query: Tensor,
    key: Tensor,
    labels: Optional[Sequence[int]] = None,
    groups: Optional[Sequence[int]] = None,
    background: Sequence[Tensor] = (),
    use: Optional[Sequence[Sequence[bool]]] = None,
    classes: Optional[Sequence[int]] = None,
    temperature: float = 0.07,
) -> Tuple[Tensor, float]:
    """PatchNCE of M pairs: every query is to find its partner among keys, which are constant."""
    keys, extra = _units(key.detach()), _units(x.detach() for x in background)
    terms, chances = [query.sum() * 0], [0.0]
    for i, anchor in enumerate(query):
        candidates = [keys[i]]
        for k, other in enumerate(keys):
            if k != i and (groups is None or groups[k] == groups[i]):
                candidates.append(other)
        candidates += [x for k, x in enumerate(extra) if use is None or use[i][k]]
        _append(terms, chances, _unit(anchor), candidates, [0], temperature)
    return _means(terms, chances, classes)


LOOPS = dict(NTXentLoss=nt_xent, SupConLoss=supcon, PatchNCELoss=patch_nce)
"""The loop of each criterion that has a chance level."""


def loop_of(criterion: torch.nn.Module) -> Callable[..., Tuple[Tensor, float]]:
    """Return the loop of a criterion, with its settings."""
    settings = dict(temperature=criterion.temperature)
    if hasattr(criterion, 'negatives'):
        settings['negatives'] = criterion.negatives
    loop = LOOPS[type(criterion).__name__]
    return lambda *args: loop(*args, **settings)


def with_background(
    criterion: PairCriterion,
    query: Tensor,
    key: Tensor,
    labels: Optional[Tensor],
    groups: Optional[Tensor],
    background: Tensor,
    use: Tensor,
) -> Tensor:
    """Return what a criterion makes of M pairs and of (K, D) rows of which (M, K) are used."""
    valid = torch.ones(1, len(query), dtype=torch.bool)
    batch = PairBatch(
        torch.cat((query, key, background))[None],
        labels=torch.full_like(valid, -1, dtype=torch.long) if labels is None else labels[None],
        valid=valid,
        groups=None if groups is None else groups[None],
        queue_mask=use[None],
    )
    return criterion.loss_weight * criterion.compare(batch).mean()[0]


def _unit(x: Tensor) -> Tensor:
    return x / x.norm()


def _units(rows: Sequence[Tensor]) -> List[Tensor]:
    return [_unit(x) for x in rows]


def _others(i: int, count: int, groups: Optional[Sequence[int]]) -> List[int]:
    """Return the points of other pairs that point ``i`` of ``2 * count`` is compared with."""
    return [
        k
        for k in range(2 * count)
        if k % count != i % count and (groups is None or groups[k % count] == groups[i % count])
    ]


def _same(labels: Optional[Sequence[int]], i: int, k: int) -> bool:
    return labels is not None and bool(labels[i] >= 0) and bool(labels[i] == labels[k])


def _append(terms, chances, anchor, candidates, positives, temperature) -> None:
    logits = torch.stack([anchor @ other for other in candidates]) / temperature
    total = torch.log(torch.exp(logits).sum())
    terms.append(sum(total - logits[p] for p in positives) / len(positives))
    chances.append(math.log(len(candidates)))


def _means(
    terms: List[Tensor], chances: List[float], classes: Optional[Sequence[int]]
) -> Tuple[Tensor, float]:
    """Return the mean over the anchors, or over their classes of the mean over the anchors."""
    zero, terms, chances = terms[0], terms[1:], chances[1:]
    of = [0 if classes is None else int(classes[i % len(classes)]) for i in range(len(terms))]
    weights = [1 / of.count(c) / len(set(of)) for c in of]
    loss = sum((w * term for w, term in zip(weights, terms)), zero)
    return loss, sum(w * chance for w, chance in zip(weights, chances))
