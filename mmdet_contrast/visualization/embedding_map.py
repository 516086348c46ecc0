"""Pictures of embeddings: projected to two dimensions, coloured by class."""

import os
import os.path as osp
from typing import Any, Dict, Optional, Sequence, Tuple, Union

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import Config
from torch import Tensor

from mmdet_contrast.engine.run_checks import check_dataset, completed_data
from mmdet_contrast.evaluation.box_embedder import BoxEmbedder
from mmdet_contrast.evaluation.functional import embedding_std, knn_accuracy
from mmdet_contrast.evaluation.labelled_samples import bank_and_queries
from mmdet_contrast.utils.files import PathLike

from .detector_input import load_detector

_LEGEND = 20
_LETTERS = 32
_MARKERS = 'osD^vP*X'


def project_embeddings(embeddings: Tensor) -> Tuple[np.ndarray, float]:
    """Project embeddings, scaled to length 1, on the two directions of their largest variance.

    Args:
        embeddings (Tensor): (N, D) embeddings of any length, N at least 2.

    Returns:
        tuple[ndarray, float]: (N, 2) coordinates, their signs fixed so that the same embeddings
        give the same picture; and the part of the variance that they show.
    """
    unit = F.normalize(embeddings.detach().cpu().double(), dim=1)
    centred = unit - unit.mean(dim=0)
    _, values, axes = torch.linalg.svd(centred, full_matrices=False)
    values, axes = F.pad(values, (0, 1))[:2], F.pad(axes, (0, 0, 0, 1))[:2]
    largest = axes.gather(1, axes.abs().argmax(dim=1, keepdim=True))
    points = centred @ (axes * largest.sign()).T
    total = centred.square().sum().item()
    return points.numpy(), values.square().sum().item() / total if total else 1.0


def draw_embedding_map(
    points: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    out_file: str,
    title: str = '',
    note: str = '',
) -> None:
    """Draw points coloured by class; of more than twenty classes, the smallest are grey.

    Args:
        points (ndarray): (N, 2) coordinates.
        labels (ndarray): (N,) class indices.
        classes (Sequence[str]): Class names.
        out_file (str): PNG to write, in a folder that exists.
        title (str): Title.
        note (str): Text below the picture.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.6, 6.4), layout='constrained')
    axis = figure.subplots()
    counts = np.bincount(labels, minlength=len(classes))
    # the largest classes first, so that the small ones lie on top of them
    order = [int(i) for i in np.argsort(-counts, kind='stable') if counts[i]]
    size = float(np.clip(14000 / len(labels), 7, 40))
    for rank, i in enumerate(order):
        named = rank < _LEGEND
        name = classes[i] if len(classes[i]) <= _LETTERS else f'{classes[i][: _LETTERS - 1]}…'
        # the number first, for matplotlib leaves names with a leading underscore out
        name = f'{counts[i]} {name}' if named else f'{len(order) - _LEGEND} other classes'
        axis.scatter(
            *points[labels == i].T,
            s=size,
            # the colour belongs to the class, whichever others occur
            color=f'C{i % 10}' if named else '0.7',
            marker=_MARKERS[i // 10 % len(_MARKERS)] if named else 'o',
            # matplotlib reads formulas between dollars
            label=name.replace('$', r'\$') if rank <= _LEGEND else None,
            alpha=0.75,
            linewidths=0.3,
            edgecolors='white',
            zorder=2 if named else 1,
        )
    axis.set_title(title)
    axis.set_xlabel(note, fontsize=9)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.legend(loc='center left', bbox_to_anchor=(1.01, 0.5), fontsize=10, frameon=False)
    figure.savefig(out_file, dpi=130)


def save_embedding_map(
    config: Union[PathLike, Config],
    checkpoint: str,
    out_file: str,
    module: Optional[str] = None,
    level: Union[int, str] = 'scale',
    max_samples: Optional[int] = 2000,
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
        module (str, optional): See ``BoxEmbedder``.
        level (int | str): See ``BoxEmbedder``.
        max_samples (int, optional): At most so many images of each set, spread evenly.
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
    os.makedirs(osp.dirname(osp.abspath(out_file)), exist_ok=True)
    model = load_detector(config, checkpoint, device, cfg_options)
    embedder = BoxEmbedder(module, level)
    loaders = {key: model.cfg[key] for key in ('train_dataloader', 'val_dataloader')}
    with completed_data(loaders):
        data = [loader.dataset for loader in loaders.values()]
        sets = bank_and_queries(*data, True, max_samples, ('train set', 'val set'))
        for part in sets:
            check_dataset(part.dataset, part.name)
    classes = sets[0].classes
    bank, queries = embedder.embed_sets(model, sets)
    values = knn_accuracy(*queries, *bank, num_classes=len(classes))
    values['std'] = embedding_std(queries.vectors)
    values.update(queries=len(queries.labels), bank=len(bank.labels))
    points, shown = project_embeddings(queries.vectors)
    name = osp.splitext(osp.basename(model.cfg.filename or 'config'))[0]
    draw_embedding_map(
        points,
        queries.labels.cpu().numpy(),
        classes,
        out_file,
        f'{name}: {embedder.name_of(model)}, level {level}\n'
        f'kNN top-1 {values["top1"]:.3f}, mean over classes {values["class_mean"]:.3f}',
        f'PCA ({shown:.0%} of the variance) of {len(points)} validation boxes; neighbours among '
        f'{len(bank.labels)} training boxes',
    )
    return values
