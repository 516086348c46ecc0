"""Pictures of embeddings: projected to two dimensions, coloured by class."""

import os.path as osp
from typing import Any, Dict, Optional, Sequence, Tuple, Union

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.utils import mkdir_or_exist
from torch import Tensor

from mmdet_contrast.engine.run_checks import check_dataset
from mmdet_contrast.evaluation.box_embedder import BoxEmbedder
from mmdet_contrast.evaluation.functional import embedding_std, knn_accuracy
from mmdet_contrast.evaluation.labelled_samples import labelled_samples, pipeline_of
from mmdet_contrast.utils.config import LaunchError
from mmdet_contrast.utils.files import PathLike, prepare_folder

from .detector_input import load_detector

METHODS = ('pca', 'tsne')
_LEGEND = 20
_LETTERS = 32
_MARKERS = 'osD^vP*X'


def project_embeddings(
    embeddings: Tensor, method: str = 'pca', seed: int = 0
) -> Tuple[np.ndarray, Optional[float]]:
    """Project embeddings, scaled to length 1, to two dimensions.

    Args:
        embeddings (Tensor): (N, D) embeddings of any length, N at least 2.
        method (str): ``'pca'``: the two directions of the largest variance, signs fixed so that
            the same embeddings give the same picture. ``'tsne'``: scikit-learn's t-SNE (van der
            Maaten and Hinton 2008), which keeps neighbours together; distances between groups, and
            their sizes, mean nothing there.
        seed (int): Seed of t-SNE. Defaults to 0.

    Returns:
        tuple[ndarray, float | None]: (N, 2) coordinates, and the part of the variance that they
        show (PCA only).
    """
    unit = F.normalize(embeddings.detach().cpu().double(), dim=1)
    return {'pca': _pca, 'tsne': _tsne}[method](unit, seed)


def _pca(unit: Tensor, seed: int) -> Tuple[np.ndarray, float]:
    centred = unit - unit.mean(dim=0)
    _, values, axes = torch.linalg.svd(centred, full_matrices=False)
    values, axes = F.pad(values, (0, 1))[:2], F.pad(axes, (0, 0, 0, 1))[:2]
    largest = axes.gather(1, axes.abs().argmax(dim=1, keepdim=True))
    points = centred @ (axes * largest.sign()).T
    total = centred.square().sum().item()
    return points.numpy(), values.square().sum().item() / total if total else 1.0


def _tsne(unit: Tensor, seed: int) -> Tuple[np.ndarray, None]:
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(unit) - 1) / 3)
    tsne = TSNE(2, perplexity=perplexity, init='pca', random_state=seed)
    return tsne.fit_transform(unit.float().numpy()), None


def draw_embedding_map(
    points: np.ndarray,
    labels: Sequence[int],
    classes: Sequence[str],
    out_file: str,
    title: str = '',
    note: str = '',
) -> str:
    """Draw points coloured by class.

    Args:
        points (ndarray): (N, 2) coordinates.
        labels (Sequence[int]): (N,) class indices.
        classes (Sequence[str]): Class names.
        out_file (str): PNG to write; its folder is made if absent.
        title (str): Title.
        note (str): Text below the picture.

    Returns:
        str: ``out_file``.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    labels = np.asarray(labels)
    figure = Figure(figsize=(8.6, 6.4), layout='constrained')
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    counts = np.bincount(labels, minlength=len(classes))
    # the largest classes first, so that the small ones lie on top of them
    order = [int(i) for i in np.argsort(-counts, kind='stable') if counts[i]]
    size = float(np.clip(14000 / len(labels), 7, 40))
    style = dict(alpha=0.75, linewidths=0.3, edgecolors='white')
    rest, entries = order[_LEGEND:], {}
    if rest:
        own = np.isin(labels, rest)
        text = f'{len(rest)} other classes ({own.sum()})'
        entries[len(classes)] = (
            text,
            axis.scatter(*points[own].T, s=size * 0.6, color='0.7', **style),
        )
    for i in order[:_LEGEND]:
        # the colour belongs to the class, whichever others occur
        colour, marker = f'C{i % 10}', _MARKERS[i // 10 % len(_MARKERS)]
        own = labels == i
        name = classes[i] if len(classes[i]) <= _LETTERS else f'{classes[i][: _LETTERS - 1]}…'
        # matplotlib reads formulas between dollars
        name = f'{name} ({counts[i]})'.replace('$', r'\$')
        entries[i] = (
            name,
            axis.scatter(*points[own].T, s=size, color=colour, marker=marker, **style),
        )
    axis.set_title(title)
    axis.set_xlabel(note, fontsize=9)
    axis.set_xticks([])
    axis.set_yticks([])
    # named in the order of the classes, the grey rest last; the names are set afterwards, for
    # matplotlib before 3.10 leaves those with a leading underscore out of a legend
    names, handles = zip(*(entries[i] for i in sorted(entries)))
    legend = axis.legend(
        handles,
        [' '] * len(names),
        loc='center left',
        bbox_to_anchor=(1.01, 0.5),
        fontsize=10,
        frameon=False,
    )
    for handle, text, name in zip(legend.legend_handles, legend.get_texts(), names):
        text.set_text(name)
        handle.set_sizes([45])
        handle.set_alpha(1)
    mkdir_or_exist(osp.dirname(osp.abspath(out_file)))
    figure.savefig(out_file, dpi=130)
    return out_file


def save_embedding_map(
    config: Union[PathLike, Config],
    checkpoint: str,
    out_file: str,
    method: str = 'pca',
    module: Optional[str] = None,
    level: Union[int, str] = 'scale',
    pool_size: int = 1,
    max_samples: Optional[int] = 2000,
    max_points: int = 5000,
    k: int = 200,
    batch_size: int = 8,
    device: Optional[str] = None,
    cfg_options: Optional[Dict[str, Any]] = None,
) -> Dict[str, float]:
    """Draw the embeddings of the validation boxes of a detector.

    The title says how many of them their nearest training boxes classify rightly; this is what
    :class:`~mmdet_contrast.engine.hooks.KNNMonitorHook` logs as ``knn/top1``, from the embeddings
    in all their dimensions.

    Args:
        config (str | PathLike | Config): Config of the detector, with a ``train_dataloader`` and
            a ``val_dataloader``.
        checkpoint (str): File with its weights.
        out_file (str): PNG to write; its folder is made if absent.
        method (str): See :func:`project_embeddings`.
        module (str, optional): See ``BoxEmbedder``.
        level (int | str): See ``BoxEmbedder``.
        pool_size (int): See ``BoxEmbedder``.
        max_samples (int, optional): At most so many images of each set, spread evenly.
        max_points (int): At most so many boxes are drawn, spread evenly; the accuracy is of all.
        k (int): Neighbours that vote.
        batch_size (int): Images in a batch.
        device (str, optional): E.g. 'cpu' or 'cuda:1'. Defaults to the first GPU, if there is one.
        cfg_options (dict, optional): Dotted config keys and their new values.

    Returns:
        dict[str, float]: ``top1``, ``top5``, ``class_mean``, ``std``, ``queries`` and ``bank``.

    Raises:
        LaunchError: If the checkpoint does not fit the config, or the classes of the two sets
            differ, or are not those of the annotation file.
        FileNotFoundError: If there is no such checkpoint.
        OSError: If the folder of ``out_file`` cannot be made or written to.

    Example:
        >>> save_embedding_map('configs/contrast/retina_shapes.py', 'epoch_10.pth', 'map.png')
    """
    if method == 'tsne':
        # it is optional, and the embeddings take minutes
        import sklearn.manifold  # noqa: F401
    prepare_folder(osp.dirname(osp.abspath(out_file)))
    model = load_detector(config, checkpoint, device, cfg_options)
    cfg, embedder = model.cfg, BoxEmbedder(module, level, pool_size)
    bank_samples, query_samples = _open_sets(cfg, max_samples)
    bank, queries = (
        embedder.embed_dataset(model, samples.dataset, batch_size, progress=True)
        for samples in (bank_samples, query_samples)
    )
    classes = query_samples.classes
    values = knn_accuracy(*queries, *bank, num_classes=len(classes), k=k)
    values['std'] = embedding_std(queries.vectors)
    values.update(queries=len(queries.labels), bank=len(bank.labels))

    count = min(max_points, len(queries.labels))
    chosen = torch.linspace(0, len(queries.labels) - 1, count).round().long()
    points, shown = project_embeddings(queries.vectors.cpu()[chosen], method)
    name = osp.splitext(osp.basename(cfg.filename or 'config'))[0]
    layer = f'{embedder.name_of(model)}, level {level}'
    note = 'PCA' if method == 'pca' else 't-SNE'
    note += f' ({shown:.0%} of the variance)' if shown is not None else ''
    drawn = f'{count} of {len(queries.labels)}' if count < len(queries.labels) else f'{count}'
    note += f' of {drawn} validation boxes; neighbours among {len(bank.labels)} training boxes'
    draw_embedding_map(
        points,
        queries.labels.cpu()[chosen].numpy(),
        classes,
        out_file,
        f'{name}: {layer}\n'
        f'kNN top-1 {values["top1"]:.3f}, mean over classes {values["class_mean"]:.3f}',
        note,
    )
    return values


def _open_sets(cfg: Config, max_samples: Optional[int]) -> Tuple[Any, Any]:
    """Open the training and the validation set, both with the pipeline of the validation."""
    # the validation set first: without a pipeline of its own the training set has none to go by
    query_samples = labelled_samples(
        cfg.val_dataloader.dataset, max_samples=max_samples, name='val set'
    )
    bank_samples = labelled_samples(
        cfg.train_dataloader.dataset,
        pipeline_of(cfg.val_dataloader.dataset),
        max_samples,
        'train set',
    )
    check_dataset(query_samples.dataset, 'val_dataloader')
    check_dataset(bank_samples.dataset, 'train_dataloader')
    if bank_samples.classes != query_samples.classes:
        raise LaunchError(
            f'the train set has the classes {list(bank_samples.classes)} and the val set '
            f'{list(query_samples.classes)}: set metainfo=dict(classes=...) of both to one list.'
        )
    return bank_samples, query_samples
