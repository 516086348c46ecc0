"""COCO's AP of old and of new classes."""

from contextlib import contextmanager
from typing import Callable, Dict, Iterator, List, Optional, Sequence, Tuple
from unittest import mock

import numpy as np
from mmdet.evaluation.metrics import CocoMetric, coco_metric
from mmdet.registry import METRICS
from mmengine.logging import MMLogger
from terminaltables import AsciiTable

_SUFFIXES = ('', '_50')
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
    masks' keys begin with ``segm_``. A class without ground truth has no AP: it is NaN, left out
    of the means, and named in the log.

    Args:
        base_classes (Sequence[str]): The old classes' names.
        novel_classes (Sequence[str], optional): The new classes' names. Defaults to all of the
            data set's that are not base classes. With both given, other classes are in neither.
        **kwargs: Arguments of ``CocoMetric``.

    Raises:
        ValueError: If a group is empty, a class is in both, or no box or mask AP is asked for; on
            setting ``dataset_meta``, if the data set does not have a class.

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
        for name, classes in (('base_classes', base_classes), ('novel_classes', novel_classes)):
            if classes is not None and (isinstance(classes, str) or not len(classes)):
                raise ValueError(
                    f'{name}={classes!r} given to BaseNovelCocoMetric, a list of at least one '
                    'class name expected.'
                )
        both = sorted(set(base_classes) & set(novel_classes or ()))
        if both:
            raise ValueError(
                f'BaseNovelCocoMetric got {both} in base_classes and in novel_classes; each class '
                'belongs to one of them.'
            )
        if not {'bbox', 'segm'} & set(self.metrics):
            raise ValueError(
                f"metric={self.metrics} given to BaseNovelCocoMetric, 'bbox' or 'segm' expected: "
                'proposals have no classes.'
            )
        self.base_classes = tuple(base_classes)
        self.novel_classes = None if novel_classes is None else tuple(novel_classes)

    @property
    def dataset_meta(self) -> Optional[dict]:
        """Optional[dict]: Meta information of the data set; its classes are checked on setting."""
        return self._dataset_meta

    @dataset_meta.setter
    def dataset_meta(self, dataset_meta: Optional[dict]) -> None:
        if dataset_meta is not None:
            self._groups_of(dataset_meta)
        self._dataset_meta = dataset_meta

    def compute_metrics(self, results: list) -> Dict[str, float]:
        """Compute ``CocoMetric``'s values and those of the groups.

        Args:
            results (list): What ``process`` has collected.

        Returns:
            dict[str, float]: Values by name, without the prefix. Without any detection the APs
            are 0.
        """
        groups = self._groups_of(self.dataset_meta)
        with _kept_evaluations() as evaluations:
            metrics = super().compute_metrics(results)
        if self.format_only:
            return metrics
        done = {x.params.iouType: x for x in evaluations if x.params.useCats}
        counts = self._count_objects()
        for kind in self.metrics:
            if kind not in ('bbox', 'segm'):
                continue
            if kind in done:
                class_aps = self._class_aps(done[kind])
            else:
                # CocoMetric stops at results without a single detection
                for item in self.metric_items or _COCO_ITEMS:
                    metrics[f'{kind}_{item}'] = 0.0
                aps = {name: 0.0 if count else float('nan') for name, count in counts.items()}
                class_aps = {suffix: aps for suffix in _SUFFIXES[: 1 + self._has_iou_50()]}
            prefix = '' if kind == 'bbox' else f'{kind}_'
            values = _summary(class_aps, groups)
            for name, ap in class_aps[''].items():
                values[f'{name}_precision'] = ap
            metrics.update({f'{prefix}{key}': round(x, 4) for key, x in values.items()})
            self._log(kind, class_aps, groups, counts, values)
        return metrics

    def _groups_of(self, dataset_meta: Optional[dict]) -> Dict[str, Tuple[str, ...]]:
        """Return the names of both groups; refuse classes that the data set does not have."""
        known = tuple((dataset_meta or {}).get('classes') or ())
        unknown = [x for x in (*self.base_classes, *(self.novel_classes or ())) if x not in known]
        if unknown:
            raise ValueError(
                f'BaseNovelCocoMetric got the classes {unknown}, which the data set does not have; '
                f'it has {list(known)}: correct base_classes and novel_classes, or the '
                "data set's metainfo."
            )
        novel = self.novel_classes
        if novel is None:
            novel = tuple(x for x in known if x not in self.base_classes)
        if not novel:
            raise ValueError(
                f'base_classes of BaseNovelCocoMetric holds all classes of the data set '
                f'({list(known)}), so that none is novel; name the old ones only, or use '
                'CocoMetric.'
            )
        return dict(base=self.base_classes, novel=novel)

    def _count_objects(self) -> Dict[str, int]:
        """Return the objects of the evaluated images that are no crowds, by class."""
        # the annotation file need not know each class of the data set
        counts = dict.fromkeys(self.dataset_meta['classes'], 0)
        counts.update(
            (
                self._coco_api.load_cats([index])[0]['name'],
                len(self._coco_api.get_ann_ids(self.img_ids, [index], iscrowd=False)),
            )
            for index in self.cat_ids
        )
        return counts

    def _has_iou_50(self) -> bool:
        return bool(np.isclose(self.iou_thrs, 0.5).any())

    def _class_aps(self, evaluation: coco_metric.COCOeval) -> Dict[str, Dict[str, float]]:
        """Return AP ('') and AP at IoU 0.5 ('_50') of each class; NaN without ground truth."""
        # (IoUs, recalls, classes, areas, detections): all areas, the most detections
        precisions = evaluation.eval['precision'][:, :, :, 0, -1]
        precisions = np.where(precisions > -1, precisions, np.nan)
        chosen = {'': slice(None), '_50': np.isclose(evaluation.params.iouThrs, 0.5)}
        names = [x['name'] for x in self._coco_api.load_cats(evaluation.params.catIds)]
        class_aps = {}
        for suffix in _SUFFIXES[: 1 + self._has_iou_50()]:
            class_aps[suffix] = dict.fromkeys(self.dataset_meta['classes'], float('nan'))
            for index, name in enumerate(names):
                class_aps[suffix][name] = _mean(precisions[chosen[suffix], :, index].flatten())
        return class_aps

    def _log(
        self,
        kind: str,
        class_aps: Dict[str, Dict[str, float]],
        groups: Dict[str, Tuple[str, ...]],
        counts: Dict[str, int],
        values: Dict[str, float],
    ) -> None:
        """Log the table, and the classes that are left out of the means."""
        suffixes = list(class_aps)
        rows = [['class', 'group', 'objects', *(f'{kind}_AP{x}' for x in suffixes)]]
        absent, alone = [], []
        for name in counts:
            group = next((group for group, names in groups.items() if name in names), '-')
            aps = [f'{class_aps[x][name]:.3f}' for x in suffixes]
            rows.append([name, group, str(counts[name]), *aps])
            if group == '-':
                alone.append(name)
            elif np.isnan(class_aps[''][name]):
                absent.append(name)
        for group in (*groups, 'harmonic'):
            rows.append([group, '', '', *(f'{values[f"{group}_mAP{x}"]:.3f}' for x in suffixes)])
        table = AsciiTable(rows)
        table.inner_footing_row_border = False
        logger = MMLogger.get_current_instance()
        logger.info(f'\n{table.table}')
        if absent:
            logger.warning(f'Without ground truth, so left out of the mean AP: {absent}.')
        if alone:
            logger.info(f'Neither base nor novel, so in neither mean AP: {alone}.')


@contextmanager
def _kept_evaluations() -> Iterator[List[coco_metric.COCOeval]]:
    """Give a list that fills with the evaluations that ``CocoMetric`` makes meanwhile.

    ``CocoMetric`` returns figures rounded to three digits, of each class the AP alone, and keeps
    its evaluation to itself; making a second one would double the time.
    """
    kept = []

    def keeping(cls: type) -> Callable[..., coco_metric.COCOeval]:
        # a function, not a subclass: COCOevalMP may have to be pickled
        def make(*args, **kwargs) -> coco_metric.COCOeval:
            kept.append(cls(*args, **kwargs))
            return kept[-1]

        return make

    names = ('COCOeval', 'COCOevalMP')
    makers = {name: keeping(getattr(coco_metric, name)) for name in names}
    with mock.patch.multiple(coco_metric, **makers):
        yield kept


def _mean(values: Sequence[float]) -> float:
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
