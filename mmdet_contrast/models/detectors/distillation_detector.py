"""A detector that learns from another one."""

import logging
from contextlib import nullcontext
from typing import Any, ContextManager, Dict, List, Mapping, Optional, Sequence, Tuple, Union, cast

import torch
from mmcv.cnn import is_norm
from mmdet.models.detectors.base import BaseDetector
from mmdet.registry import MODELS
from mmdet.structures import OptSampleList, SampleList
from mmdet.utils import ConfigType, reduce_mean
from mmengine.logging import MMLogger
from torch import Tensor, nn

from mmdet_contrast.compat import rename_state
from mmdet_contrast.utils.config import LaunchError
from mmdet_contrast.utils.model import model_section

from ..distill import (
    Distiller,
    Teacher,
    TransferReport,
    decode_boxes,
    join_levels,
    map_classes,
    object_weights,
    record,
    spare_unannotated,
    transfer_weights,
    without_negative_sides,
)

# kinds of terms that the teacher's scores weigh
_WEIGHTED = ('boxes', 'decoded', 'centerness')


@MODELS.register_module()
class DistillationDetector(BaseDetector):
    """Train a student with its own losses and with the outputs of a frozen teacher.

    The wrapper's ``state_dict`` is the student's, and the weights of losses that have some:
    checkpoints load in the student's plain config, and a plain checkpoint starts the wrapper. The
    teacher is no registered module: it is absent from parameters, ``state_dict`` and checkpoints,
    and shared by copies of the model (EMA). It is built and loaded when training starts, and runs
    in eval mode, without gradient, on images as its own data preprocessor normalises them.
    Validation and testing use the student alone.

    A term compares ``source`` in the student with the same in the teacher. The maps of a head are
    ``'bbox_head.cls'`` (raw class maps, compared on the classes both know, by name),
    ``'bbox_head.reg'`` (raw distributions of the sides), ``'bbox_head.boxes'`` (decoded boxes, for
    heads without distributions, with one of MMDetection's losses of boxes) and
    ``'bbox_head.centerness'``. All but the classes are weighted by how far the teacher's highest
    score at the location is above the image's mean, and divided by the sum of these weights, or by
    1 where that is less. Other sources are features; those with several maps (a neck) are averaged
    over the maps. All terms are multiplied by what the head's own losses are multiplied by:
    YOLOv8's, by the batch.

    ``DistillationHook`` has to be among the ``custom_hooks``: it prepares the teacher before
    training.

    Args:
        student (dict | str): The student's config: its ``model`` section, a whole config, or the
            path of one.
        teacher (dict | str): The teacher's config in the same way.
        teacher_checkpoint (str, optional): Path or URL of the teacher's weights. Needed for
            training, not for testing.
        distillers (Sequence[dict]): The terms: ``source``, ``loss``, and optionally ``weight`` (1)
            and ``name`` (the source's path; the log has ``loss_distill_<name>``).
        annotated_classes (Sequence[str], optional): Names of the classes that the training images
            annotate; all by default. What is seen of the others is not learned to be background,
            but left to the teacher. ``DistillationHook`` reads from the annotation file which
            images annotate other classes.
        teacher_classes (Sequence[str], optional): The student's names of the teacher's classes, by
            default those in the teacher's checkpoint.
        student_classes (Sequence[str], optional): Names of the student's classes, by default those
            of the training data.
        start_from_teacher (bool): Whether training starts from the teacher's weights, class rows by
            name (not when it resumes or loads a checkpoint).
        norm_eval (bool): Whether batch normalisation in the student keeps its running statistics
            and normalises with them. With the statistics of each batch a student differs from its
            teacher even where their weights are equal; a student that starts from its teacher
            forgets less without that noise.
        data_preprocessor (dict, optional): That of a student or a teacher without one. MMEngine
            gives the one that stands beside ``model`` in a config.

    Raises:
        ValueError: If two terms have one name.

    Examples:
        >>> model = dict(
        ...     type='DistillationDetector',
        ...     student='configs/yolov8/yolov8_n_shapes.py',
        ...     teacher='configs/yolov8/yolov8_n_shapes.py',
        ...     teacher_checkpoint='work_dirs/teacher/epoch_15.pth',
        ...     distillers=[
        ...         dict(source='neck', loss=dict(type='ChannelWiseDivergence'), weight=0.2),
        ...         dict(source='bbox_head.cls', loss=dict(type='LogitsKLDivergence')),
        ...     ],
        ... )
    """

    def __init__(
        self,
        student: Union[ConfigType, str],
        teacher: Union[ConfigType, str],
        teacher_checkpoint: Optional[str] = None,
        distillers: Sequence[dict] = (),
        annotated_classes: Optional[Sequence[str]] = None,
        teacher_classes: Optional[Sequence[str]] = None,
        student_classes: Optional[Sequence[str]] = None,
        start_from_teacher: bool = False,
        norm_eval: bool = False,
        data_preprocessor: Optional[dict] = None,
    ) -> None:
        super().__init__(data_preprocessor=None)
        self.student = MODELS.build(model_section(student, data_preprocessor))
        self.data_preprocessor = self.student.data_preprocessor
        self.teacher = Teacher(teacher, teacher_checkpoint, teacher_classes, data_preprocessor)
        self.annotated_classes = annotated_classes
        self.student_classes = None if student_classes is None else tuple(student_classes)
        self.start_from_teacher = start_from_teacher
        self.norm_eval = norm_eval
        self.shared: Optional[List[int]] = None
        self._annotated: Optional[Tensor] = None
        self._annotated_in: Dict[str, Tensor] = {}
        terms = nn.ModuleList(Distiller(**cfg) for cfg in distillers)
        self.distillers = cast(Sequence[Distiller], terms)
        names = [distiller.name for distiller in self.distillers]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f'Two distillers are called {name!r}: give each its own name.')
        rename_state(self, _leave_student, _enter_student)

    def init_weights(self) -> None:
        """Initialise the student."""
        self.student.init_weights()

    def train(self, mode: bool = True) -> 'DistillationDetector':
        """Set the training mode; with ``norm_eval`` normalisation layers stay in eval mode."""
        super().train(mode)
        if self.norm_eval:
            for module in self.student.modules():
                if is_norm(module):
                    module.eval()
        return self

    def prepare(
        self,
        student_classes: Optional[Sequence[str]] = None,
        annotated_in: Optional[Mapping[str, Sequence[int]]] = None,
    ) -> None:
        """Build and load the teacher, and match the classes; called before training.

        Args:
            student_classes (Sequence[str], optional): Names in the training data.
            annotated_in (Mapping[str, Sequence[int]], optional): ``img_path`` of images that do not
                annotate ``annotated_classes`` → indices of the classes that they annotate.

        Raises:
            ValueError: If classes are unknown or do not match, or the teacher has no checkpoint.
            LaunchError: If a head has softmax scores, and a term or ``annotated_classes`` needs
                sigmoid scores, or classes compete and the teacher has but one.
            FileNotFoundError: If the teacher's config or checkpoint is missing.
        """
        self.teacher.load()
        if self.student_classes is None and student_classes is not None:
            self.student_classes = tuple(student_classes)
        self._set_annotated(annotated_in or {})
        self._refuse_softmax()
        by_class = any(d.kind == 'classes' for d in self.distillers)
        if not (by_class or self.start_from_teacher):
            return
        theirs, ours = self.teacher.classes, self.student_classes
        if theirs is None or ours is None:
            owner = 'teacher' if theirs is None else 'student'
            raise ValueError(f"The {owner}'s classes are unknown: set model.{owner}_classes.")
        self.shared = map_classes(theirs, ours)
        for distiller in self.distillers:
            if getattr(distiller.criterion, 'mode', '') == 'softmax' and len(self.shared) == 1:
                raise LaunchError(
                    f"{distiller.source.text} is compared with mode='softmax', which is always 0 "
                    "for the teacher's one class: set mode='bernoulli'."
                )

    def start(self) -> TransferReport:
        """Copy the teacher's weights into the student, class rows by name.

        Returns:
            TransferReport: What was copied.

        Raises:
            ValueError: If the architectures differ.
        """
        ours = self.student_classes
        # prepare() has seen to it
        assert ours is not None and self.shared is not None
        state = self.teacher.model.state_dict()
        report = transfer_weights(self.student, state, self.shared, len(ours))
        level = logging.WARNING if report.unlike else logging.INFO
        MMLogger.get_current_instance().log(level, str(report))
        return report

    def loss(self, batch_inputs: Tensor, batch_data_samples: SampleList) -> Dict[str, Any]:
        """Compute the student's losses and the terms of distillation.

        Args:
            batch_inputs (Tensor): (N, 3, H, W) images as the student's preprocessor gives them.
            batch_data_samples (list[DetDataSample]): Their samples.

        Returns:
            dict[str, Tensor | list[Tensor]]: The student's losses, and ``loss_distill_<name>``.

        Raises:
            RuntimeError: If the teacher has not been loaded.
            LaunchError: If images annotate different classes, and samples lack ``img_path``.
            ValueError: If a source is no module, or the maps do not fit.
        """
        if self.teacher.model is None:
            raise RuntimeError(
                "the teacher is not loaded: set custom_hooks=[dict(type='DistillationHook')]."
            )
        theirs, outputs = self._run_teacher(batch_inputs, batch_data_samples)
        # the head sees the originals, not the views of a contrastive batch, which come last
        originals = [each for each in batch_data_samples if not each.metainfo.get('view', 0)]
        # recorded first: the terms see the maps before they are spared
        with record(self.student, [d.source for d in self.distillers]) as ours:
            with self._spare(originals, batch_inputs.device):
                losses = self.student.loss(batch_inputs, batch_data_samples)
        factor = self._batch_factor(len(originals))
        weighed = self._weigh(outputs, len(originals))
        for distiller in self.distillers:
            maps = distiller.source.maps(ours), distiller.source.maps(theirs)
            value = self._distil(distiller, *maps, weighed) * (distiller.weight * factor)
            losses[f'loss_distill_{distiller.name}'] = value
        return losses

    def predict(
        self, batch_inputs: Tensor, batch_data_samples: SampleList, rescale: bool = True
    ) -> SampleList:
        """Predict with the student; see MMDetection."""
        return self.student.predict(batch_inputs, batch_data_samples, rescale=rescale)

    def _forward(self, batch_inputs: Tensor, batch_data_samples: OptSampleList = None) -> Tuple:
        return self.student(batch_inputs, batch_data_samples, mode='tensor')

    def extract_feat(self, batch_inputs: Tensor) -> Tuple[Tensor, ...]:
        """Extract the student's features; see MMDetection."""
        return self.student.extract_feat(batch_inputs)

    @torch.no_grad()
    def _run_teacher(self, inputs: Tensor, samples: SampleList) -> Tuple[Dict[str, Any], Any]:
        """Run the teacher as far as it is needed; return what its modules and its head give."""
        if not self.distillers:
            return {}, None
        network, sources = self.teacher.model, [d.source for d in self.distillers]
        assert network is not None
        self.teacher.to(inputs.device)
        heads = any(s.path.startswith('bbox_head') for s in sources)
        inputs = self.teacher.prepare_inputs(inputs, samples, self.data_preprocessor)
        with record(network, sources) as recorded:
            feats = network.extract_feat(inputs)
            outputs = network.bbox_head(feats) if heads else None
        return recorded, outputs

    def _set_annotated(self, annotated_in: Mapping[str, Sequence[int]]) -> None:
        """Note which classes images annotate, by default and where they say so themselves."""
        if self.annotated_classes is None and not annotated_in:
            return
        classes = self.student_classes
        if classes is None:
            raise ValueError("The student's classes are unknown: set model.student_classes.")
        default = classes if self.annotated_classes is None else self.annotated_classes
        unknown = [name for name in default if name not in classes]
        # a misspelt class would be learnt by nothing
        if unknown:
            raise ValueError(
                f'annotated_classes has {unknown}, which are none of the classes {classes} of the '
                'training data: give names of these.'
            )
        self._annotated = torch.tensor([name in default for name in classes])
        for path, labels in annotated_in.items():
            mask = torch.zeros(len(classes), dtype=torch.bool)
            mask[list(labels)] = True
            self._annotated_in[path] = mask

    def _refuse_softmax(self) -> None:
        """Refuse heads whose scores would silently be taken for sigmoid scores."""
        terms = [d.source.text for d in self.distillers if d.kind in _WEIGHTED]
        spared = [] if self._annotated is None else ['annotated_classes']
        for owner, model, parts in (
            ('teacher', self.teacher.model, terms),
            ('student', self.student, spared),
        ):
            head = getattr(model, 'bbox_head', None)
            if parts and not getattr(head, 'use_sigmoid_cls', True):
                raise LaunchError(
                    f'{type(head).__name__} of the {owner} has softmax scores, but sigmoid scores '
                    f'are expected with {", ".join(parts)}: leave that out of model, or take a '
                    'detector with sigmoid scores.'
                )

    def _spare(self, samples: SampleList, device: torch.device) -> ContextManager[None]:
        """Keep the classes that images do not annotate out of the student's own losses."""
        if self._annotated is None:
            return nullcontext()
        metas = [each.metainfo for each in samples]
        # without its path an image would silently annotate what images do by default
        if self._annotated_in and not all('img_path' in meta for meta in metas):
            raise LaunchError(
                'the annotation file says which classes each picture annotates '
                '(annotated_category_ids), and a picture is found there by its path, which the '
                "samples lack: add 'img_path' to meta_keys of the last transform of the pipeline."
            )
        masks = [self._annotated_in.get(meta.get('img_path'), self._annotated) for meta in metas]
        # copied without a wait for the GPU
        mask = torch.stack(masks).to(device, non_blocking=True)
        return spare_unannotated(self.student.bbox_head, mask)

    def _batch_factor(self, number: int) -> float:
        """Return what the head's own losses are multiplied by, as YOLOv8's are by the batch."""
        head = getattr(self.student, 'bbox_head', None)
        return head.batch_factor(number) if hasattr(head, 'batch_factor') else 1.0

    def _weigh(self, outputs: Any, number: int) -> Optional[Tuple[Tensor, Tensor]]:
        """Return (N, A, L) weights and their sum, at least 1, if a term needs them."""
        if not any(distiller.kind in _WEIGHTED for distiller in self.distillers):
            return None
        assert self.teacher.model is not None
        maps = [level[:number] for level in outputs[0]]
        weights = object_weights(join_levels(maps, self.teacher.model.bbox_head.cls_out_channels))
        return weights, reduce_mean(weights.sum()).clamp(min=1)

    def _distil(
        self,
        distiller: Distiller,
        ours: List[Tensor],
        theirs: List[Tensor],
        weighed: Optional[Tuple[Tensor, Tensor]],
    ) -> Tensor:
        """Return a term: over all maps together, for features the mean of the maps' terms."""
        criterion = distiller.criterion
        if distiller.kind == 'features':
            return self._compare_features(distiller, ours, theirs)
        assert self.teacher.model is not None
        head, other = self.student.bbox_head, self.teacher.model.bbox_head
        theirs = [level[: len(ours[0])] for level in theirs]
        if distiller.kind == 'classes':
            shared = self.shared
            assert shared is not None
            first, second = (
                join_levels(maps, each.cls_out_channels).flatten(0, 1)
                for each, maps in ((head, ours), (other, theirs))
            )
            number = len(shared)
            # a list of indices would be copied to the GPU, and the classes with it
            alike = list(shared) == list(range(number))
            first = first[:, :number] if alike else first[:, shared]
            # without the background of a softmax
            return criterion(first, second[:, :number])
        assert weighed is not None
        weights, objects = weighed
        if distiller.kind == 'decoded':
            # anchor by anchor in a cell, as the boxes are
            weight = weights.transpose(1, 2).flatten()
            first, second = (
                without_negative_sides(decode_boxes(each, maps).flatten(0, 2))
                for each, maps in ((head, ours), (other, theirs))
            )
            # where the teacher's box has no area it is none, and GIoU of two such boxes is not 1
            weight = weight * (second[:, 2:] > second[:, :2]).all(dim=1)
            return criterion(first, second, weight, avg_factor=objects)
        channels = 1 if distiller.kind == 'centerness' else ours[0].shape[1] // weights.shape[1]
        first, second = (join_levels(maps, channels).flatten(0, 1) for maps in (ours, theirs))
        return criterion(first, second, weights.flatten(0, 1), avg_factor=objects)

    def _compare_features(
        self, distiller: Distiller, ours: List[Tensor], theirs: List[Tensor]
    ) -> Tensor:
        shapes = [[tuple(each.shape[1:]) for each in maps] for maps in (ours, theirs)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f'{distiller.source.text!r} of the student gives maps (C, H, W) of {shapes[0]}, '
                f'that of the teacher of {shapes[1]}: choose a source whose maps are of one size.'
            )
        return torch.stack([distiller.criterion(*pair) for pair in zip(ours, theirs)]).mean()


def _leave_student(module: nn.Module, state: dict, prefix: str, metadata: dict) -> None:
    """Name the student's weights as in its plain config."""
    inner = f'{prefix}student.'
    for key in [key for key in state if key.startswith(inner)]:
        state[prefix + key[len(inner) :]] = state.pop(key)


def _enter_student(state: dict, prefix: str, *_: Any) -> None:
    """Name a plain checkpoint's weights as the wrapper has them."""
    # a loss may have weights of its own
    own = f'{prefix}distillers.'
    for key in [key for key in state if key.startswith(prefix) and not key.startswith(own)]:
        state[f'{prefix}student.{key[len(prefix) :]}'] = state.pop(key)
