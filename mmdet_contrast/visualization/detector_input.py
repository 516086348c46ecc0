"""A trained detector, and images as its test pipeline prepares them."""

import os
import os.path as osp
from collections import Counter
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Union

import cv2
import mmcv
import numpy as np
import torch
from mmcv.transforms import Compose
from mmdet.apis.det_inferencer import IMG_EXTENSIONS
from mmdet.models.detectors.base import BaseDetector
from mmdet.structures import DetDataSample
from mmdet.utils import get_test_pipeline_cfg
from mmengine.config import Config
from mmengine.runner import CheckpointLoader
from torch import Tensor, nn

from mmdet_contrast.datasets.converters._coco import image_size
from mmdet_contrast.utils.checkpoint_checks import check_weights
from mmdet_contrast.utils.detector_checks import check_device, check_is_dict, name_classes
from mmdet_contrast.utils.launch import load_config
from mmdet_contrast.utils.launch_checks import LaunchError, explained
from mmdet_contrast.utils.picture_extent import tell_padding
from mmdet_contrast.utils.plain_forward import build_detector


class DetectorInput(NamedTuple):
    """One image, as a person and as the detector sees it.

    Attributes:
        path (str): The image file.
        picture (ndarray): (H, W, 3) uint8 RGB, the file's own pixels.
        inputs (Tensor): (1, 3, H', W') float, resized, normalised and padded.
        sample (DetDataSample): What is known of it, ``img_shape`` and ``batch_input_shape`` among
            it.
    """

    path: str
    picture: np.ndarray
    inputs: Tensor
    sample: DetDataSample


class SavedPicture(NamedTuple):
    """What became of one picture that was to be drawn.

    Attributes:
        image (str): The image file.
        out_file (str, optional): The picture, or None where nothing was drawn.
        note (str): What is drawn, or why nothing is.
        readable (bool): False where the file is no whole image.
    """

    image: str
    out_file: Optional[str]
    note: str
    readable: bool = True


def load_detector(
    config: Union[str, 'os.PathLike[str]', Config],
    checkpoint: str,
    device: Optional[str] = None,
    cfg_options: Optional[Dict[str, Any]] = None,
) -> nn.Module:
    """Build a detector from its config and checkpoint.

    MMDetection's ``init_detector`` would load a checkpoint of something else with a warning, give
    one without names the classes of COCO, and knows no config of distillation.

    Args:
        config (str | PathLike | Config): Config of the detector; of distillation, its student is
            built.
        checkpoint (str): File with its weights.
        device (str, optional): E.g. 'cpu' or 'cuda:1'. Defaults to the first GPU, if there is one.
        cfg_options (dict, optional): Dotted config keys and their new values.

    Returns:
        nn.Module: The detector in evaluation mode, with ``cfg`` and ``dataset_meta``.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        LaunchError: If the config, the checkpoint or the device cannot be used, or the checkpoint
            does not fit.
    """
    if '://' not in checkpoint and not osp.isfile(checkpoint):
        raise FileNotFoundError(
            f'checkpoint {checkpoint!r} does not exist: give the .pth file of a trained detector.'
        )
    cfg = load_config(config, cfg_options=cfg_options)
    if cfg.get('model') is None or cfg.get('test_dataloader') is None:
        raise LaunchError(
            f'config {cfg.filename!r} has no model or no test_dataloader: give the config that the '
            'detector was trained with.'
        )
    student = cfg.model.get('student')
    if student is not None:
        student = Config.fromfile(student) if isinstance(student, str) else student
        cfg.model = student.get('model', student)
    device = device or ('cuda:0' if torch.cuda.is_available() else 'cpu')
    check_device(device)
    with explained(cfg):
        model = build_detector(cfg)
        weights = CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu')
    if not isinstance(model, BaseDetector):
        raise LaunchError(
            f'the model of config {cfg.filename!r} is a {type(model).__name__}, not a detector: '
            'give the config of a detector.'
        )
    check_is_dict(weights)
    check_weights(model, weights)
    model.dataset_meta = name_classes(model, weights, cfg)
    model.cfg = cfg
    return model.to(device)


def list_images(path: str) -> List[str]:
    """List the images that a path names.

    Args:
        path (str): An image, or a folder with images.

    Returns:
        list[str]: The image, or those of the folder in the order of their names, hidden files left
        out.

    Raises:
        FileNotFoundError: If there is no such path, or the folder has no image.
    """
    if osp.isfile(path):
        return [path]
    if not osp.isdir(path):
        raise FileNotFoundError(f'{path!r} does not exist: give an image or a folder of images.')
    names = sorted(
        entry.name
        for entry in os.scandir(path)
        if entry.is_file()
        and entry.name.lower().endswith(IMG_EXTENSIONS)
        # macOS leaves '._a.jpg' beside 'a.jpg' on foreign disks
        and not entry.name.startswith('.')
    )
    if not names:
        raise FileNotFoundError(
            f'folder {path!r} has no image ({", ".join(IMG_EXTENSIONS)}): give a folder that has.'
        )
    return [osp.join(path, name) for name in names]


def read_images(
    detector: nn.Module, paths: Sequence[str]
) -> Iterator[Union[DetectorInput, SavedPicture]]:
    """Prepare images one by one with the detector's own test pipeline.

    Args:
        detector (nn.Module): As :func:`load_detector` returns it.
        paths (Sequence[str]): Image files.

    Yields:
        DetectorInput | SavedPicture: The image; or, of a file that cannot be read, the note that
        says so.
    """
    pipeline = Compose(tell_padding(get_test_pipeline_cfg(detector.cfg)))
    for path in paths:
        try:
            # finds what is cut off, which OpenCV fills with grey
            image_size(path, verify=True)
            picture = mmcv.imread(path, channel_order='rgb')
        except (OSError, cv2.error, AttributeError):
            picture = None
        if picture is None:
            yield SavedPicture(path, None, 'cannot be read as an image, or is cut off', False)
            continue
        data = pipeline(dict(img_path=path, img_id=0))
        batch = dict(inputs=[data['inputs']], data_samples=[data['data_samples']])
        batch = detector.data_preprocessor(batch, False)
        yield DetectorInput(path, picture, batch['inputs'], batch['data_samples'][0])


def picture_stems(paths: Sequence[str]) -> List[str]:
    """Name pictures after their images.

    Args:
        paths (Sequence[str]): Image files of one folder.

    Returns:
        list[str]: The file names without their ending, or with it where two would be the same;
        each of its own.
    """
    names = [osp.basename(path) for path in paths]
    stems = [osp.splitext(name)[0] for name in names]
    counts = Counter(stems)
    taken = {stem for stem, count in counts.items() if count == 1}
    out = []
    for stem, name in zip(stems, names):
        if counts[stem] > 1:
            stem = name.replace('.', '_')
            while stem in taken:
                stem += '_'
            taken.add(stem)
        out.append(stem)
    return out
