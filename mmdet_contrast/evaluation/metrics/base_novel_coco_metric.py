"""COCO's AP of old and of new classes."""

from typing import Any, Dict, Optional, Sequence, Tuple

import numpy as np
from mmdet.evaluation.metrics import CocoMetric
from mmdet.registry import METRICS
from mmengine.logging import MMLogger
from terminaltables import AsciiTable

from mmdet_contrast.compat import coco_evaluations

_COCO_ITEMS = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l')


@METRICS.register_module()
class BaseNovelCocoMetric(CocoMetric):
    """MMDetection's ``CocoMetric``, and the AP of base and of novel classes apart.

    For a detector that learns new classes and should keep the old ones. Everything that
    ``CocoMetric`` returns stays; added are (with the prefix ``coco/``)

    - ``base_mAP``, ``novel_mAP``: mean AP of the classes of each group, and ``harmonic_mAP``, their
      harmonic mean, which is low where either is;
    - ``base_mAP_50``, ``novel_mAP_50``, ``harmonic_mAP_50``: the same at IoU 0.5, where that is
      among ``iou_thrs``;
    - ``<class>_precision``: each class's AP, under the name that ``CocoMetric(classwise=True)``
      gives it;

    and a table by class is logged. With ``metric='segm'`` beside or instead of ``'bbox'`` the
    keys of the masks begin with ``segm_``. A class without ground truth has no AP: it is NaN, left
    out of the means, and named in the log. Where nothing at all was detected, every AP is 0.

    Args:
        base_classes (Sequence[str]): The old classes' names.
        novel_classes (Sequence[str], optional): The new classes' names. Defaults to all of the
            data set's that are not base classes. With both given, other classes are in neither. An
            empty list evaluates a detector whose classes are the base classes: the values of the
            novel ones are NaN.
        **kwargs: Arguments of ``CocoMetric``.

    Raises:
        ValueError: On setting ``dataset_meta``, if a group is empty, has a class that the data set
            does not have, or shares one with the other.

    Examples:
        In a config:

        >>> val_evaluator = dict(
        ...     type='BaseNovelCocoMetric',
        ...     base_classes=['RBC', 'WBC'],
        ...     ann_file='data/bccd/annotations/val.json',
        ...     metric='bbox')
    """

    def __init__(
        self,
        base_classes: Sequence[str],
        novel_classes: Optional[Sequence[str]] = None,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        # CocoMetric documents a number and a list, and pycocotools takes neither
        self.iou_thrs = np.atleast_1d(self.iou_thrs)
        self.base_classes = tuple(base_classes)
        self.novel_classes = None if novel_classes is None else tuple(novel_classes)

    @property
    def dataset_meta(self) -> Optional[dict]:
        """Optional[dict]: Meta information of the data set; its classes are checked on setting."""
        return CocoMetric.dataset_meta.fget(self)

    @dataset_meta.setter
    def dataset_meta(self, dataset_meta: Optional[dict]) -> None:
        if dataset_meta is not None:
            self._groups_of(dataset_meta)
        CocoMetric.dataset_meta.fset(self, dataset_meta)

    def compute_metrics(self, results: list) -> Dict[str, float]:
        """Compute ``CocoMetric``'s values and those of the groups; see MMEngine."""
        groups = self._groups_of(self.dataset_meta)
        with coco_evaluations() as evaluations:
            metrics = super().compute_metrics(results)
        if self.format_only:
            return metrics
        done = {x.params.iouType: x for x in evaluations if x.params.useCats}
        suffixes = ('', '_50') if np.isclose(self.iou_thrs, 0.5).any() else ('',)
        for kind in self.metrics:
            if kind not in ('bbox', 'segm'):
                continue
            if kind in done:
                class_aps = {suffix: self._class_aps(done[kind], suffix) for suffix in suffixes}
            else:
                # CocoMetric stops at results without a single detection
                for item in self.metric_items or _COCO_ITEMS:
                    metrics[f'{kind}_{item}'] = 0.0
                class_aps = dict.fromkeys(suffixes, dict.fromkeys(self.dataset_meta['classes'], 0))
            values = _summary(class_aps, groups)
            if kind in done:
                self._log(done[kind], class_aps, groups, values)
            values.update({f'{name}_precision': ap for name, ap in class_aps[''].items()})
            prefix = '' if kind == 'bbox' else f'{kind}_'
            metrics.update({f'{prefix}{key}': round(x, 4) for key, x in values.items()})
        return metrics

    def _groups_of(self, dataset_meta: dict) -> Dict[str, Tuple[str, ...]]:
        """Return the names of both groups."""
        known = tuple(dataset_meta['classes'])
        base, novel = self.base_classes, self.novel_classes
        all_old = novel == () and set(base) == set(known)
        if novel is None:
            novel = tuple(x for x in known if x not in base)
        empty = not base or not (novel or all_old)
        if empty or set(base) & set(novel) or not set(base + novel) <= set(known):
            raise ValueError(
                f'BaseNovelCocoMetric got base_classes={base} and novel_classes={novel}: give two '
                f'groups without a common class of the classes of the data set, {known}.'
            )
        return dict(base=base, novel=novel)

    def _class_aps(self, evaluation: Any, suffix: str) -> Dict[str, float]:
        """Return AP ('') or AP at IoU 0.5 ('_50') of each class; NaN without ground truth."""
        # (IoUs, recalls, classes, areas, detections): all areas, the most detections
        precisions = evaluation.eval['precision'][:, :, :, 0, -1]
        precisions = np.where(precisions > -1, precisions, np.nan)
        if suffix == '_50':
            precisions = precisions[np.isclose(evaluation.params.iouThrs, 0.5)]
        # the annotation file need not know each class of the data set
        aps = dict.fromkeys(self.dataset_meta['classes'], float('nan'))
        # pycocotools sorts the ids that it evaluates
        for index, category in enumerate(evaluation.cocoGt.loadCats(evaluation.params.catIds)):
            aps[category['name']] = _mean(precisions[:, :, index])
        return aps

    def _log(
        self,
        evaluation: Any,
        class_aps: Dict[str, Dict[str, float]],
        groups: Dict[str, Tuple[str, ...]],
        values: Dict[str, float],
    ) -> None:
        """Log the table, and the classes that are left out of the means."""
        truth, params = evaluation.cocoGt, evaluation.params
        counts = {
            category['name']: len(
                truth.getAnnIds(imgIds=params.imgIds, catIds=[category['id']], iscrowd=False)
            )
            for category in truth.loadCats(params.catIds)
        }
        rows = [['class', 'group', 'objects', *(f'{params.iouType}_AP{x}' for x in class_aps)]]
        group_of = {name: group for group, names in groups.items() for name in names}
        for name in self.dataset_meta['classes']:
            aps = [f'{own[name]:.3f}' for own in class_aps.values()]
            rows.append([name, group_of.get(name, '-'), str(counts.get(name, 0)), *aps])
        for group in (*groups, 'harmonic'):
            rows.append([group, '', '', *(f'{values[f"{group}_mAP{x}"]:.3f}' for x in class_aps)])
        table = AsciiTable(rows)
        table.inner_footing_row_border = False
        logger = MMLogger.get_current_instance()
        logger.info(f'\n{table.table}')
        absent = [name for name in group_of if np.isnan(class_aps[''][name])]
        if absent:
            logger.warning(f'Without ground truth, so left out of the mean AP: {absent}.')


def _mean(values: Any) -> float:
    """Return the mean of what is not NaN; NaN of nothing, without NumPy's warning."""
    values = np.asarray(values, dtype=float)
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float('nan')


def _summary(
    class_aps: Dict[str, Dict[str, float]], groups: Dict[str, Tuple[str, ...]]
) -> Dict[str, float]:
    """Return the mean AP of each group and the harmonic mean of the groups."""
    values = {}
    for suffix, aps in class_aps.items():
        means = [_mean([aps[name] for name in names]) for names in groups.values()]
        for group, mean in zip(groups, means):
            values[f'{group}_mAP{suffix}'] = mean
        product, total = means[0] * means[1], means[0] + means[1]
        values[f'harmonic_mAP{suffix}'] = 2 * product / total if total else 0.0
    return values
