"""Hook that says how well the features tell classes apart, by their nearest neighbours."""

from math import sqrt
from typing import Any, Dict, Optional, Sequence, Tuple, Union

import numpy as np
import torch
from mmdet.registry import DATASETS, HOOKS
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import IterBasedTrainLoop
from torch import nn
from torch.utils.data import Dataset, Subset

from mmdet_contrast.evaluation.box_embedder import BoxEmbedder, Embeddings
from mmdet_contrast.evaluation.functional import (
    alignment,
    embedding_std,
    knn_accuracy,
    uniformity,
)
from mmdet_contrast.evaluation.labelled_samples import (
    LabelledSamples,
    labelled_samples,
    pipeline_of,
)

from ._undisturbed import undisturbed

_STATS = ('std', 'uniformity', 'alignment')


@HOOKS.register_module()
class KNNMonitorHook(Hook):
    """Classify validation boxes by their nearest training boxes while a model trains.

    Every ``interval`` epochs the ground-truth boxes of both sets are embedded with the features of
    the model and those of the validation set are classified by a weighted vote of their nearest
    neighbours (:func:`~mmdet_contrast.evaluation.functional.knn_predict`). It needs no head and no
    loss: it tells whether the features get better before the AP does, and works in pre-training.

    The log gets ``knn/top1``, ``knn/top5`` and ``knn/class_mean`` (top-1 of each class, averaged:
    the figure to look at where one class has most objects), in [0, 1], and ``knn/`` with each of
    ``stats``. Images are read with the test pipeline, without augmentation. Training is not
    affected: modes, random states and weights are those of a run without the hook. With an
    ``EMAHook`` the trained weights are looked at, not their average. Distributed processes share
    the embedding.

    Args:
        interval (int): Epochs (or iterations) between two looks. Defaults to 1.
        by_epoch (bool): Whether to count epochs. Defaults to True.
        bank (dict, optional): Config of the data set with known classes: a detection set,
            ``LabelledImageFolder`` or ``BoxCrops``. Defaults to that of ``train_dataloader``.
        queries (dict, optional): Config of the data set to classify. Defaults to that of
            ``val_dataloader``.
        pipeline (Sequence[dict], optional): Test pipeline of both. Defaults to that of ``queries``,
            but a ``bank`` given with a pipeline of its own keeps it.
        module (str, optional): See ``BoxEmbedder``. Defaults to the neck, else the backbone.
        level (int | str): See ``BoxEmbedder``. Defaults to ``'scale'``.
        pool_size (int): See ``BoxEmbedder``. Defaults to 1.
        k (int): Neighbours that vote, at most the bank. Defaults to 200.
        temperature (float): Of the votes. Defaults to 0.1.
        stats (Sequence[str]): Further figures: ``'std'``, ``'uniformity'`` of the embeddings of
            the queries, ``'alignment'`` of training boxes with their contrastive views (left out,
            with a sentence, where the training data has none). Defaults to ``('std',)``.
        max_samples (int, optional): At most so many images of each set, spread evenly; the log
            says so. Defaults to all.
        max_view_samples (int): The same of the images with views for ``'alignment'``.
        batch_size (int): Images in a batch.
        num_workers (int): Processes that load images.
        at_start (bool): Whether to look before the first iteration, too.
        progress (bool): Whether to show a progress bar.

    Raises:
        ValueError: If a number is not positive or a name is unknown; when training starts, if a
            data set is missing, differs in its classes or numbers them in another order than its
            annotation file, or epochs are not counted; at the first look, if a data set has no
            labelled box.

    Examples:
        >>> custom_hooks = [dict(type='KNNMonitorHook', interval=1, max_samples=2000)]
        >>> # images in a folder for each class, for pre-training
        >>> folder = dict(type='LabelledImageFolder', pipeline=test_pipeline)
        >>> custom_hooks = [
        ...     dict(
        ...         type='KNNMonitorHook',
        ...         bank=dict(folder, data_root='cells/train'),
        ...         queries=dict(folder, data_root='cells/val'),
        ...         module='backbone',
        ...         level=-1,
        ...     )
        ... ]
    """

    # before the checkpoint and the log of the same epoch
    priority = 'NORMAL'

    def __init__(
        self,
        interval: int = 1,
        by_epoch: bool = True,
        bank: Optional[dict] = None,
        queries: Optional[dict] = None,
        pipeline: Optional[Sequence[dict]] = None,
        module: Optional[str] = None,
        level: Union[int, str] = 'scale',
        pool_size: int = 1,
        k: int = 200,
        temperature: float = 0.1,
        stats: Sequence[str] = ('std',),
        max_samples: Optional[int] = None,
        max_view_samples: int = 256,
        batch_size: int = 8,
        num_workers: int = 0,
        at_start: bool = False,
        progress: bool = True,
    ) -> None:
        for name, value in (
            ('interval', interval),
            ('k', k),
            ('temperature', temperature),
            ('max_samples', 1 if max_samples is None else max_samples),
            ('max_view_samples', max_view_samples),
            ('batch_size', batch_size),
        ):
            if value <= 0:
                raise ValueError(f'KNNMonitorHook got {name}={value}, a positive number expected.')
        if isinstance(stats, str) or not set(stats) <= set(_STATS):
            raise ValueError(f'KNNMonitorHook got stats={stats!r}, a list of {_STATS} expected.')
        self.interval = interval
        self.by_epoch = by_epoch
        self.bank = bank
        self.queries = queries
        self.pipeline = pipeline
        self.embedder = BoxEmbedder(module, level, pool_size)
        self.vote = dict(k=k, temperature=temperature)
        self.stats = tuple(stats)
        self.max_samples = max_samples
        self.max_view_samples = max_view_samples
        self.loading = dict(batch_size=batch_size, num_workers=num_workers, progress=progress)
        self.at_start = at_start
        self._sets: Tuple[LabelledSamples, ...] = ()
        self._views: Optional[Dataset] = None
        self._said = False

    def before_train(self, runner: Any) -> None:
        """Build the data sets, so that what is wrong with them shows before the training.

        Args:
            runner (Runner): The runner.
        """
        if self.by_epoch and isinstance(runner.train_loop, IterBasedTrainLoop):
            raise ValueError(
                'KNNMonitorHook got by_epoch=True in a training that counts iterations, where it '
                'would never look: set by_epoch=False and interval in iterations.'
            )
        with undisturbed(_model(runner)):
            self._build(runner)
        if self.at_start:
            self._measure(runner, runner.epoch if self.by_epoch else runner.iter)

    def after_train_epoch(self, runner: Any) -> None:
        """Look at the features.

        Args:
            runner (Runner): The runner.
        """
        if self.by_epoch and self.every_n_epochs(runner, self.interval):
            self._measure(runner, runner.epoch + 1)

    def after_train_iter(
        self,
        runner: Any,
        batch_idx: int,
        data_batch: Optional[dict] = None,
        outputs: Optional[dict] = None,
    ) -> None:
        """Look at the features, if iterations are counted.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Not used.
            data_batch (dict, optional): Not used.
            outputs (dict, optional): Not used.
        """
        if not self.by_epoch and self.every_n_train_iters(runner, self.interval):
            self._measure(runner, runner.iter + 1)

    def _build(self, runner: Any) -> None:
        """Build the bank, the queries, and the images with views."""
        bank = self.bank or _dataset_of(runner, 'train_dataloader', 'bank')
        queries = self.queries or _dataset_of(runner, 'val_dataloader', 'queries')
        names = ('bank', 'set of queries')
        own = pipeline_of(queries)
        # the queries first: without a pipeline of theirs the bank has none to go by
        query_samples = labelled_samples(
            queries, self.pipeline, self.max_samples, f"KNNMonitorHook's {names[1]}"
        )
        bank_samples = labelled_samples(
            bank,
            # the training set's own pipeline augments
            own if self.pipeline is None and self.bank is None else self.pipeline,
            self.max_samples,
            f"KNNMonitorHook's {names[0]}",
            default_pipeline=own,
        )
        self._sets = (bank_samples, query_samples)
        if self._sets[0].classes != self._sets[1].classes:
            raise ValueError(
                f"KNNMonitorHook's bank has the classes {list(self._sets[0].classes)} and its "
                f'queries {list(self._sets[1].classes)}; the same in the same order expected: set '
                'metainfo=dict(classes=...) of both.'
            )
        for name, part in zip(names, self._sets):
            if len(part.dataset) < part.total:
                runner.logger.info(
                    f"KNNMonitorHook's {name} is {len(part.dataset)} of {part.total} samples "
                    '(max_samples).'
                )
        if 'alignment' in self.stats:
            self._views = self._find_views(runner)

    def _find_views(self, runner: Any) -> Optional[Dataset]:
        """Build the training set with its own pipeline, if that makes views."""
        cfg = _dataset_of(runner, 'train_dataloader', 'bank')
        if 'PackContrastiveInputs' not in str(cfg):
            runner.logger.info(
                'KNNMonitorHook leaves knn/alignment out: the training data has no contrastive '
                'view (PackContrastiveInputs at the end of train_pipeline).'
            )
            return None
        views = DATASETS.build(cfg)
        count = min(self.max_view_samples, len(views))
        chosen = torch.linspace(0, len(views) - 1, count).round().long().tolist()
        return Subset(views, chosen)

    def _measure(self, runner: Any, step: int) -> None:
        """Embed, classify and log."""
        model = _model(runner)
        with undisturbed(model):
            bank, queries = (
                self.embedder.embed_dataset(model, part.dataset, **self.loading)
                for part in self._sets
            )
            self._check(bank, queries)
            if not (bank.vectors.isfinite().all() and queries.vectors.isfinite().all()):
                runner.logger.warning(
                    'KNNMonitorHook found features that are not finite and measures nothing: look '
                    'at the losses.'
                )
                return
            classes = self._sets[0].classes
            self._name_absent(runner, bank, queries, classes)
            values = knn_accuracy(*queries, *bank, num_classes=len(classes), **self.vote)
            values.update(self._figures(runner, model, queries))
        values = {f'knn/{key}': value for key, value in values.items()}
        text = ', '.join(f'{key}: {value:.4f}' for key, value in values.items())
        width = queries.vectors.shape[1]
        runner.logger.info(
            f'{"Epoch" if self.by_epoch else "Iter"}(knn) [{step}]  {text}  '
            f'({len(queries.labels)} queries, bank of {len(bank.labels)}, '
            f'{self.embedder.name_of(model)}, 1/sqrt({width}) = {1 / sqrt(width):.4f})'
        )
        runner.visualizer.add_scalars(values, step=step, file_path=f'{runner.timestamp}.json')

    def _figures(self, runner: Any, model: nn.Module, queries: Embeddings) -> Dict[str, float]:
        """Compute the statistics that were asked for."""
        values = {}
        for name, function in (('std', embedding_std), ('uniformity', uniformity)):
            if name in self.stats:
                if len(queries.labels) > 1:
                    values[name] = function(queries.vectors)
                else:
                    runner.logger.info(f'KNNMonitorHook leaves knn/{name} out: one query.')
        if self._views is not None:
            # the same views at every look; undisturbed puts the state back
            np.random.seed(0)
            pairs = self.embedder.embed_dataset(model, self._views, pairs=True, **self.loading)
            if len(pairs.labels):
                first, second = pairs.vectors.chunk(2, dim=1)
                values['alignment'] = alignment(first, second)
            else:
                runner.logger.info('KNNMonitorHook leaves knn/alignment out: no box has a view.')
        return values

    def _check(self, bank: Embeddings, queries: Embeddings) -> None:
        """Refuse sets without a box."""
        names = ('bank', 'train_dataloader'), ('queries', 'val_dataloader')
        for (name, loader), part, found in zip(names, self._sets, (bank, queries)):
            if len(found.labels) == 0:
                raise ValueError(
                    f'KNNMonitorHook found no labelled box in the {len(part.dataset)} images of '
                    f'{name} (by default the data set of {loader}): check its ann_file and '
                    'metainfo.classes.'
                )

    def _name_absent(
        self, runner: Any, bank: Embeddings, queries: Embeddings, classes: Sequence[str]
    ) -> None:
        """Say once which classes of the queries the bank does not have."""
        absent = sorted(set(queries.labels.tolist()) - set(bank.labels.tolist()))
        if absent and not self._said:
            self._said = True
            runner.logger.warning(
                f"KNNMonitorHook's bank has no box of {[classes[i] for i in absent]}, so that "
                'queries of these classes count as wrong.'
            )


def _model(runner: Any) -> nn.Module:
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def _dataset_of(runner: Any, loader: str, argument: str) -> dict:
    """Return the config of the data set of a loader of the runner."""
    cfg = runner.cfg.get(loader)
    dataset = cfg.get('dataset') if isinstance(cfg, dict) else None
    if not isinstance(dataset, dict):
        raise ValueError(
            f'KNNMonitorHook found no data set config in {loader} of the config: give '
            f'{argument}=dict(type=..., ...) to the hook.'
        )
    return dataset
