"""Heat maps of what a detector's scores rest on."""

from contextlib import contextmanager
from typing import Iterator, List, NamedTuple, Optional, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmdet_contrast.utils.plain_forward import PlainForward
from mmdet_contrast.visualization.cam_targets import CamTarget, class_logits, head_outputs
from mmdet_contrast.visualization.module_capture import ModuleCapture

METHODS = ('grad-cam', 'hires-cam', 'ablation-cam', 'eigen-cam')


class ActivationMap(NamedTuple):
    """A heat map of an input.

    Attributes:
        heat (Tensor): (H, W) float32 in pixels of the padded input; its greatest value is 1, or
            all are 0.
        used (list[str]): The feature maps it is the mean of, as ``name[level]``.
        empty (list[str]): Those that are 0 everywhere and were left out: the score does not rest on
            them, or only where it is held down.
    """

    heat: Tensor
    used: List[str]
    empty: List[str]


def class_activation_map(
    detector: nn.Module,
    inputs: Tensor,
    target: Optional[CamTarget] = None,
    modules: Sequence[str] = ('neck',),
    level: Optional[int] = None,
    method: str = 'hires-cam',
    chunk: int = 8,
) -> ActivationMap:
    """Compute a heat map of one image from feature maps A of (C, h, w) and a score y.

    - ``grad-cam`` (Selvaraju et al., arXiv 1610.02391): ReLU(Σ_c w_c A_c), where w_c is the mean
      over all places of ∂y/∂A_c.
    - ``hires-cam`` (Draelos & Carin, arXiv 2011.08891): ReLU(Σ_c ∂y/∂A_c · A_c), place by place.
    - ``ablation-cam`` (Desai & Ramaswamy, WACV 2020): as Grad-CAM with w_c = y − y(A_c := 0): C
      forward passes, no gradient. (The paper divides by y, which the scaling to 1 undoes.)
    - ``eigen-cam`` (Muhammad & Yeasin, arXiv 2008.00299): the first principal component of A,
      A · v with A = U S Vᵀ as (h·w, C), its strongest value made positive. It has no score.

    The heat maps of several feature maps are each scaled to 1, enlarged to the input and averaged.

    The detector is left as it was: modes, ``requires_grad``, gradients and statistics. During the
    call it is in evaluation mode.

    Args:
        detector (nn.Module): A single-stage detector with a dense head; any for ``eigen-cam``.
        inputs (Tensor): (1, 3, H, W) normalised image.
        target (CamTarget, optional): The score; none for ``eigen-cam``.
        modules (Sequence[str]): Dotted paths of modules. Defaults to ('neck',).
        level (int, optional): Which map of a module that gives several. Defaults to all of them.
        method (str): See above. Defaults to 'hires-cam', which keeps to the places that the score
            rests on; averaged weights also light what is alike elsewhere.
        chunk (int): Images of a forward pass of ``ablation-cam``. Defaults to 8.

    Returns:
        ActivationMap: The heat map.

    Raises:
        ValueError: If the method, a module or a level does not exist, a module gives maps of
            regions instead of the image, or the target does not go with the method.

    Example:
        >>> outputs = head_outputs(detector, inputs)
        >>> target = box_target(detector, outputs, sample, detections, 0)
        >>> heat = class_activation_map(detector, inputs, target, ['backbone.layer3']).heat
    """
    _check(inputs, target, method, chunk)
    with _evaluation(detector), torch.enable_grad():
        capture, score = _run(detector, inputs, target, modules, method)
        places = capture.chosen(level, one_image=True)
        features = [capture.maps[place].features for place in places]
        if method == 'eigen-cam':
            heats = [eigen_cam(entry.detach()[0]) for entry in features]
        elif method == 'ablation-cam':
            heats = _ablation(detector, inputs, target, modules, capture, places, score, chunk)
        else:
            heats = _gradient(score, features, place_by_place=method == 'hires-cam')
    return _combine(capture, places, heats, tuple(inputs.shape[-2:]))


def eigen_cam(features: Tensor) -> Tensor:
    """Project a feature map on its first principal component, without centring (Eigen-CAM).

    Args:
        features (Tensor): (C, h, w).

    Returns:
        Tensor: (h, w), not negative: the component's sign is the one with which its strongest
        value is positive, and what is negative then is 0.
    """
    flat = features.flatten(1).t().double()
    _, _, directions = torch.linalg.svd(flat, full_matrices=False)
    values = flat @ directions[0]
    values = values * torch.sign(values[values.abs().argmax()])
    return values.clamp(min=0).reshape(features.shape[1:]).float()


def _check(inputs: Tensor, target: Optional[CamTarget], method: str, chunk: int) -> None:
    if method not in METHODS:
        raise ValueError(f'method is {method!r}, but must be one of {", ".join(METHODS)}.')
    if len(inputs) != 1 or inputs.dim() != 4:
        raise ValueError(f'inputs is {tuple(inputs.shape)}, but must be one image (1, 3, H, W).')
    if chunk < 1:
        raise ValueError(f'chunk is {chunk}, but must be at least 1: the images of a forward pass.')
    if method == 'eigen-cam' and target is not None:
        raise ValueError(
            'eigen-cam explains neither a box nor a class: leave the target out, or take another '
            'method.'
        )
    if method != 'eigen-cam' and (target is None or not len(target.priors)):
        raise ValueError(f'{method} has nothing to explain: give a target with a prediction.')


@contextmanager
def _evaluation(detector: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients of weights; afterwards all is as it was."""
    modes = [(module, module.training) for module in detector.modules()]
    flags = [(weight, weight.requires_grad) for weight in detector.parameters()]
    try:
        detector.eval()
        for weight, _ in flags:
            weight.requires_grad_(False)
        yield
    finally:
        for weight, flag in flags:
            weight.requires_grad_(flag)
        for module, mode in modes:
            # not `train(mode)`, which would change the parts as well
            module.training = mode


def _run(
    detector: nn.Module,
    inputs: Tensor,
    target: Optional[CamTarget],
    modules: Sequence[str],
    method: str,
) -> tuple:
    """Run the detector once; returns the feature maps and the score."""
    with ModuleCapture(detector, modules, gradient=method in ('grad-cam', 'hires-cam')) as capture:
        if target is None:
            with torch.no_grad():
                PlainForward(detector)(inputs)
            return capture, None
        outputs = head_outputs(detector, inputs)
        return capture, target.score(class_logits(detector.bbox_head, outputs))[0]


def _gradient(score: Tensor, features: List[Tensor], place_by_place: bool) -> List[Tensor]:
    """Weight the channels by the gradient of the score; zeros where there is no way to it."""
    if not score.requires_grad:
        return [torch.zeros_like(entry[0, 0]) for entry in features]
    gradients = torch.autograd.grad(score, features, allow_unused=True)
    heats = []
    for entry, gradient in zip(features, gradients):
        if gradient is None:
            heats.append(torch.zeros_like(entry[0, 0]).detach())
            continue
        weights = gradient if place_by_place else gradient.mean((2, 3), keepdim=True)
        heats.append((weights * entry.detach()).sum(1)[0].clamp(min=0))
    return heats


@torch.no_grad()
def _ablation(
    detector: nn.Module,
    inputs: Tensor,
    target: CamTarget,
    modules: Sequence[str],
    capture: ModuleCapture,
    places: Sequence[int],
    score: Tensor,
    chunk: int,
) -> List[Tensor]:
    """Weight the channels by what the score loses without them."""

    def scores_without(place: int, channels: Tensor) -> Tensor:
        """Return the score of the image with each row of channels set to 0."""

        def change(current: int, features: Tensor) -> Tensor:
            if current != place:
                return features
            return features.masked_fill(channels[:, :, None, None].to(features.device), 0)

        with ModuleCapture(detector, modules, change=change):
            outputs = head_outputs(detector, inputs.expand(len(channels), -1, -1, -1))
        return target.score(class_logits(detector.bbox_head, outputs))

    heats = []
    for place in places:
        features = capture.maps[place].features[0]
        number = len(features)
        losses = torch.zeros(number, device=features.device)
        # Levels on which the score does not rest at all cost one forward pass, not C.
        if scores_without(place, torch.ones(1, number, dtype=torch.bool))[0] != score:
            for rows in torch.eye(number, dtype=torch.bool).split(chunk):
                losses[rows.any(0).to(losses.device)] = score - scores_without(place, rows)
        heats.append((losses[:, None, None] * features).sum(0).clamp(min=0))
    return heats


def _combine(
    capture: ModuleCapture, places: Sequence[int], heats: Sequence[Tensor], size: tuple
) -> ActivationMap:
    """Average the heat maps that show something, each scaled to 1."""
    total, used, empty = torch.zeros(size), [], []
    for place, heat in zip(places, heats):
        entry = capture.maps[place]
        name = f'{entry.name}[{entry.level}]'
        if not bool(torch.isfinite(heat).all()):
            raise ValueError(
                f'the heat map of {name} is not finite: the weights, or the image, are broken; '
                'evaluate the checkpoint first.'
            )
        if not float(heat.max()) > 0:
            empty.append(name)
            continue
        used.append(name)
        heat = (heat / heat.max()).float().cpu()
        total += F.interpolate(heat[None, None], size=size, mode='bilinear')[0, 0]
    return ActivationMap(total / total.max() if used else total, used, empty)
