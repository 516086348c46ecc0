"""Linear evaluation of a backbone."""

from typing import Dict, List, Optional, Union

import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.model import BaseModel
from torch import Tensor, nn

from mmdet_contrast.utils.config import LaunchError

from ..contrast.sample_embeddings import embed_samples


@MODELS.register_module()
class LinearClassifier(BaseModel):
    """A linear classifier on a backbone that is frozen and in eval mode.

    The usual measure of a pre-trained backbone (MoCo, arXiv 1911.05722, section 4.1; SimSiam,
    arXiv 2011.10566, section 4): how well the classes can be told apart by a linear map of its
    features. Neither weights nor batch-normalisation statistics of the backbone move.

    Samples are images with a class (``LabelledImageFolder``, ``BoxCrops``), whose features are
    averaged over their positions, or detection samples, whose boxes are pooled by RoIAlign from
    the features of the whole image. Their pipelines, that of validation too, need
    ``LoadAnnotations`` directly after the image is loaded, so that boxes are resized and flipped
    with the image; MMDetection's test pipelines have it after ``Resize``.

    Args:
        backbone (dict): Config of any MMDetection backbone; what is evaluated comes from its
            ``init_cfg``, which has to fill it.
        num_classes (int): Number of classes.
        in_channels (int): Length of an embedding: channels of the level.
        level (int | str): See :func:`~mmdet_contrast.models.contrast.sample_embeddings\
.embed_regions`. Defaults to the last.
        data_preprocessor (dict, optional): Config, usually of ``DetDataPreprocessor``.
        init_cfg (dict, optional): Initialisation of the whole model.

    Examples:
        >>> model = LinearClassifier(
        ...     backbone=dict(type='ResNet', depth=18, init_cfg=dict(
        ...         type='Pretrained', checkpoint='work_dirs/backbone.pth')),
        ...     num_classes=3,
        ...     in_channels=512,
        ... )
    """

    def __init__(
        self,
        backbone: dict,
        num_classes: int,
        in_channels: int,
        level: Union[int, str] = -1,
        data_preprocessor: Optional[dict] = None,
        init_cfg: Optional[dict] = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.backbone = MODELS.build(backbone)
        self.backbone.requires_grad_(False)
        # as built it would be in training mode until the first call of train()
        self.backbone.eval()
        self.classifier = nn.Linear(in_channels, num_classes)
        self.level = level

    def init_weights(self) -> None:
        """Initialise the model, and refuse a checkpoint that leaves the backbone at random.

        MMEngine only warns then, and the accuracy would be that of random features.

        Raises:
            LaunchError: If the checkpoint of the backbone's ``init_cfg`` lacks a weight.
        """
        init_cfg = self.backbone.init_cfg
        if not isinstance(init_cfg, dict) or init_cfg.get('type') != 'Pretrained':
            super().init_weights()
            return
        random = {k: p for k, p in self.backbone.named_parameters() if p.dim() > 1 and p.any()}
        means = {k: b for k, b in self.backbone.named_buffers() if k.endswith('running_mean')}
        for value in (*random.values(), *means.values()):
            value.fill_(float('nan'))
        super().init_weights()
        left = [name for name, value in {**random, **means}.items() if value.isnan().all()]
        if left:
            raise LaunchError(
                f'the checkpoint {init_cfg["checkpoint"]!r} leaves {len(left)} weights of the '
                f'backbone at random, {left[0]} first: give one of this backbone, with '
                "prefix='backbone.' in init_cfg if it is that of a whole model."
            )

    def train(self, mode: bool = True) -> 'LinearClassifier':
        """Set the mode of the classifier; the backbone stays in eval mode."""
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(
        self,
        inputs: Tensor,
        data_samples: List[DetDataSample],
        mode: str = 'tensor',
    ) -> Union[Tensor, Dict[str, Tensor], List[DetDataSample]]:
        """Classify what has a label.

        Args:
            inputs (Tensor): (N, 3, H, W) preprocessed images.
            data_samples (list[DetDataSample]): N samples: with ``gt_label`` in their metainfo, or
                with boxes and labels in ``gt_instances``.
            mode (str): ``'loss'``, ``'predict'`` or ``'tensor'``.

        Returns:
            dict[str, Tensor] | list[DetDataSample] | Tensor: ``'loss'``: ``loss_cls``, the
            cross-entropy, and ``accuracy``, top-1 in [0, 1]. ``'predict'``: the samples with
            ``class_scores`` (K, num_classes) and ``class_labels`` (K,) of the K things labelled
            in each. ``'tensor'``: (K, num_classes) logits.
        """
        with torch.no_grad():
            feats = self.backbone(inputs)
            feats = [feats] if isinstance(feats, Tensor) else list(feats)
            vectors, labels = embed_samples(feats, data_samples, inputs.shape[-2:], self.level)
        logits = self.classifier(vectors).float()
        if mode == 'tensor':
            return logits
        if mode == 'predict':
            return self._predict(logits, labels, data_samples)
        if len(labels) == 0:
            # 0, and connected to every parameter that learns
            return dict(loss_cls=logits.sum())
        hits = logits.detach().argmax(dim=1) == labels
        return dict(loss_cls=F.cross_entropy(logits, labels), accuracy=hits.float().mean())

    @staticmethod
    def _predict(
        logits: Tensor, labels: Tensor, data_samples: List[DetDataSample]
    ) -> List[DetDataSample]:
        """Share the scores out among the samples."""
        counts = [
            1 if 'gt_label' in sample.metainfo else len(sample.gt_instances)
            for sample in data_samples
        ]
        scores = logits.softmax(dim=1).split(counts)
        for sample, own, truth in zip(data_samples, scores, labels.split(counts)):
            sample.class_scores = own
            sample.class_labels = truth
        return data_samples
