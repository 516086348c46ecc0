"""Hook that says how well the features tell classes apart, by their nearest neighbours."""

import random
from contextlib import contextmanager
from copy import deepcopy
from math import sqrt
from typing import Iterator, Optional, Tuple, Union

import numpy as np
import torch
from mmdet.registry import HOOKS
from mmengine.dataset import pseudo_collate
from mmengine.dist import broadcast, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop, Runner
from torch import nn

from mmdet_contrast.engine.run_checks import check_dataset, completed_data
from mmdet_contrast.evaluation.box_embedder import BoxEmbedder
from mmdet_contrast.evaluation.functional import embedding_std, knn_accuracy
from mmdet_contrast.evaluation.labelled_samples import LabelledSamples, bank_and_queries
from mmdet_contrast.utils.model import evaluating, unwrap_model


@HOOKS.register_module()
class KNNMonitorHook(Hook):
    """Classify validation boxes by their nearest training boxes while a model trains.

    Every ``interval`` epochs the ground-truth boxes of both sets are embedded with the features of
    the model and those of the validation set are classified by a weighted vote of their nearest
    neighbours (:func:`~mmdet_contrast.evaluation.functional.knn_predict`). It needs no head and no
    loss: it tells whether the features get better before the AP does, and works in pre-training.

    The log gets ``knn/top1``, ``knn/top5`` and ``knn/class_mean`` (top-1 of each class, averaged:
    the figure to look at where one class has most objects), in [0, 1], and ``knn/std``, which tells
    a collapse (:func:`~mmdet_contrast.evaluation.functional.embedding_std`). Images are read with
    the test pipeline, without augmentation. Training is not affected: modes, random states and
    weights are those of a run without the hook. With an ``EMAHook`` the trained weights are looked
    at, not their average. Distributed processes share the embedding.

    Args:
        interval (int): Epochs between two looks. Defaults to 1.
        bank (dict, optional): Config of the data set with known classes: a detection set,
            ``LabelledImageFolder`` or ``BoxCrops``. Defaults to that of ``train_dataloader``.
            A ``bank`` without a pipeline gets that of the queries.
        queries (dict, optional): Config of the data set to classify. Defaults to that of
            ``val_dataloader``.
        module (str, optional): See ``BoxEmbedder``. Defaults to the neck, else the backbone.
        level (int | str): See ``BoxEmbedder``. Defaults to ``'scale'``.
        k (int): Neighbours that vote, at most the bank. Defaults to 200.
        max_samples (int, optional): At most so many images of each set, spread evenly. Defaults to
            all.
        batch_size (int): Images in a batch.
        num_workers (int): Processes that load images.

    Raises:
        ValueError: When training starts, if a data set is missing, the two differ in their classes,
            or there is no such module or level.
        LaunchError: When training starts, if the classes of a data set are not those of its
            annotation file in its order; at the first look, if one has no labelled box.

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
        bank: Optional[dict] = None,
        queries: Optional[dict] = None,
        module: Optional[str] = None,
        level: Union[int, str] = 'scale',
        k: int = 200,
        max_samples: Optional[int] = None,
        batch_size: int = 8,
        num_workers: int = 0,
    ) -> None:
        self.interval = interval
        self.bank = bank
        self.queries = queries
        self.embedder = BoxEmbedder(module, level)
        self.k = k
        self.max_samples = max_samples
        self.loading = dict(batch_size=batch_size, num_workers=num_workers)
        self._sets: Tuple[LabelledSamples, ...] = ()
        self._said = False

    def before_train(self, runner: Runner) -> None:
        """Build the data sets and embed an image of each: what is wrong shows before the training.

        Raises:
            ValueError: If the training counts iterations.
        """
        if isinstance(runner.train_loop, IterBasedTrainLoop):
            raise ValueError(
                'KNNMonitorHook looks at the features after epochs, but train_cfg counts '
                "iterations: set train_cfg=dict(type='EpochBasedTrainLoop', max_epochs=…), or "
                'remove the hook.'
            )
        model = unwrap_model(runner.model)
        with _undisturbed(model):
            self._build(runner)
            for part in self._sets:
                self.embedder.embed(model, pseudo_collate([part.dataset[0]]))

    def after_train_epoch(self, runner: Runner) -> None:
        """Look at the features."""
        if not self.every_n_epochs(runner, self.interval):
            return
        model = unwrap_model(runner.model)
        classes = self._sets[0].classes
        with _undisturbed(model):
            bank, queries = self.embedder.embed_sets(model, self._sets, **self.loading)
            if not (bank.vectors.isfinite().all() and queries.vectors.isfinite().all()):
                runner.logger.warning(
                    'KNNMonitorHook found features that are not finite and measures nothing: look '
                    'at the losses.'
                )
                return
            absent = sorted(set(queries.labels.tolist()) - set(bank.labels.tolist()))
            if absent and not self._said:
                self._said = True
                runner.logger.warning(
                    f"KNNMonitorHook's bank has no box of {[classes[i] for i in absent]}: queries "
                    'of these classes count as wrong.'
                )
            values = knn_accuracy(*queries, *bank, num_classes=len(classes), k=self.k)
            if len(queries.labels) > 1:
                values['std'] = embedding_std(queries.vectors)
        values = {f'knn/{key}': value for key, value in values.items()}
        text = ', '.join(f'{key}: {value:.4f}' for key, value in values.items())
        width = queries.vectors.shape[1]
        step = runner.epoch + 1
        runner.logger.info(
            f'Epoch(knn) [{step}]  {text}  '
            f'({len(queries.labels)} queries, bank of {len(bank.labels)}, '
            f'{self.embedder.name_of(model)}, 1/sqrt({width}) = {1 / sqrt(width):.4f})'
        )
        runner.visualizer.add_scalars(values, step=step, file_path=f'{runner.timestamp}.json')

    def _build(self, runner: Runner) -> None:
        """Build the bank and the queries."""
        names = ('bank of KNNMonitorHook', 'set of queries of KNNMonitorHook')
        data = deepcopy(
            [
                self.bank or _dataset_of(runner, 'train_dataloader', 'bank'),
                self.queries or _dataset_of(runner, 'val_dataloader', 'queries'),
            ]
        )
        with completed_data({name: dict(dataset=part) for name, part in zip(names, data)}):
            # the training set's own pipeline augments
            self._sets = bank_and_queries(*data, self.bank is None, self.max_samples, names)
            for part in self._sets:
                check_dataset(part.dataset, part.name)


@contextmanager
def _undisturbed(model: nn.Module) -> Iterator[None]:
    """Put a model in eval mode without gradients; restore its modes and all random states after.

    Between distributed processes the statistics of batch normalisation may differ; within, all have
    those of the first, which its checkpoints hold.
    """
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    buffers = list(model.buffers()) if get_world_size() > 1 else []
    own = [buffer.clone() for buffer in buffers]
    for buffer in buffers:
        broadcast(buffer, src=0)
    try:
        with evaluating(model), torch.no_grad():
            yield
    finally:
        for buffer, value in zip(buffers, own):
            buffer.copy_(value)
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        if devices:
            torch.cuda.set_rng_state_all(devices)


def _dataset_of(runner: Runner, loader: str, argument: str) -> dict:
    """Return the config of the data set of a loader of the runner."""
    cfg = runner.cfg.get(loader) or {}
    if 'dataset' not in cfg:
        raise ValueError(
            f'KNNMonitorHook found no {loader}.dataset in the config: give {argument}=dict(...) to '
            'the hook.'
        )
    return cfg['dataset']
