"""Embeddings of the objects of a data set, by a detector or a pre-trained backbone."""

import sys
from typing import Any, List, NamedTuple, Optional, Sequence, Union

import torch
from mmengine.dataset import pseudo_collate
from mmengine.dist import all_gather_object, get_rank, get_world_size, is_main_process
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm import tqdm

from mmdet_contrast.models.contrast.sample_embeddings import embed_samples
from mmdet_contrast.utils.config import LaunchError
from mmdet_contrast.utils.model import ModuleCapture

from .labelled_samples import LabelledSamples


class Embeddings(NamedTuple):
    """Embeddings and what they are of.

    Attributes:
        vectors (Tensor): (K, D) float32, on the model's device.
        labels (Tensor): (K,) class indices.
    """

    vectors: Tensor
    labels: Tensor


class BoxEmbedder:
    """Embeds annotated boxes (or labelled images) with the features of a module of a model.

    A box's embedding is the mean of its region of the feature maps, by RoIAlign, without any
    projector of a loss: what the detection head gets to see.

    Args:
        module (str, optional): Dotted path of the module whose output is used: ``'neck'``,
            ``'backbone'``, ``'backbone.layer3'`` … Defaults to the neck, or to the backbone of a
            model that has none.
        level (int | str): Which of its maps: an index or ``'scale'``, see
            :func:`~mmdet_contrast.models.contrast.sample_embeddings.embed_regions`.

    Examples:
        >>> embedder = BoxEmbedder(module='neck', level=0)
        >>> vectors, labels = embedder.embed_dataset(detector, samples.dataset)
    """

    def __init__(
        self,
        module: Optional[str] = None,
        level: Union[int, str] = 'scale',
    ) -> None:
        self.module = module
        self.level = level

    def name_of(self, model: nn.Module) -> str:
        """Return which module of a model is used.

        Args:
            model (nn.Module): The model.

        Returns:
            str: Its dotted path.
        """
        if self.module is not None:
            return self.module
        has_neck = isinstance(getattr(_detector(model), 'neck', None), nn.Module)
        return 'neck' if has_neck else 'backbone'

    def embed(self, model: nn.Module, data: dict) -> Embeddings:
        """Embed what is annotated in a batch.

        Args:
            model (nn.Module): The model, in eval mode.
            data (dict): A batch as a data loader gives it: ``inputs`` and ``data_samples``.

        Returns:
            Embeddings: The boxes (or images) of the batch.

        Raises:
            ValueError: If the model has no such module, or no such level.
        """
        plain, name = _detector(model), self.name_of(model)
        data = model.data_preprocessor(data, False)
        inputs = data['inputs']
        with ModuleCapture(plain, [name]) as capture:
            if name.split('.')[0] == 'backbone' or not hasattr(plain, 'extract_feat'):
                plain.backbone(inputs)
            else:
                plain.extract_feat(inputs)
        feats = [capture.maps[place].features for place in capture.chosen()]
        vectors, labels = embed_samples(feats, data['data_samples'], inputs.shape[-2:], self.level)
        return Embeddings(vectors.float(), labels)

    def embed_dataset(
        self, model: nn.Module, dataset: Dataset, batch_size: int = 8, num_workers: int = 0
    ) -> Embeddings:
        """Embed what is annotated in a data set; distributed processes share the work.

        The first process shows a progress bar.

        Args:
            model (nn.Module): The model, in eval mode.
            dataset (Dataset): Its items are what ``PackDetInputs`` gives.
            batch_size (int): Images in a batch.
            num_workers (int): Processes that load images.

        Returns:
            Embeddings: Of the whole data set, the same in every process.

        Raises:
            ValueError: If the model has no such module, or no such level.
        """
        rank, world = get_rank(), get_world_size()
        total = len(dataset)
        share = Subset(dataset, range(rank, total, world)) if world > 1 else dataset
        loader = DataLoader(
            share, batch_size=batch_size, num_workers=num_workers, collate_fn=pseudo_collate
        )
        vectors: List[Tensor] = []
        labels: List[Tensor] = []
        bar = tqdm(
            total=total,
            desc='embed',
            disable=not is_main_process(),
            # a log file gets a line every few seconds
            mininterval=0.1 if sys.stderr.isatty() else 5,
        )
        with torch.no_grad(), bar:
            for data in loader:
                batch = self.embed(model, data)
                if len(batch.labels):
                    vectors.append(batch.vectors)
                    labels.append(batch.labels)
                # the other processes are about as far
                bar.update(min(batch_size * world, total - bar.n))
        device = next(model.parameters()).device
        own = (
            torch.cat(vectors) if vectors else torch.zeros((0, 0), device=device),
            torch.cat(labels) if labels else torch.zeros(0, dtype=torch.long, device=device),
        )
        if world == 1:
            return Embeddings(*own)
        shares = all_gather_object(tuple(x.cpu() for x in own))
        filled = [x for x in shares if len(x[1])] or shares[:1]
        return Embeddings(*(torch.cat(x).to(device) for x in zip(*filled)))

    def embed_sets(
        self, model: nn.Module, sets: Sequence[LabelledSamples], **loading: Any
    ) -> List[Embeddings]:
        """Embed data sets of which each must have something to embed.

        Args:
            model (nn.Module): The model, in eval mode.
            sets (Sequence[LabelledSamples]): The data sets.
            **loading: See :meth:`embed_dataset`.

        Returns:
            list[Embeddings]: One for each.

        Raises:
            LaunchError: If nothing in one of them has a label.
        """
        found = []
        for part in sets:
            found.append(self.embed_dataset(model, part.dataset, **loading))
            if not len(found[-1].labels):
                raise LaunchError(
                    f'the {part.name} has no labelled box: check its ann_file and metainfo.classes.'
                )
        return found


def _detector(model: nn.Module) -> Any:
    """Return what has the backbone: the student, where another model teaches it."""
    return getattr(model, 'student', model)
