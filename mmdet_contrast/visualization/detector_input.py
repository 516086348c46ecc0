"""A trained detector, images as its test pipeline prepares them, and programs that draw both."""

import argparse
import os
import os.path as osp
import sys
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple, Union

import cv2
import numpy as np
from mmcv.transforms import Compose
from mmdet.apis.det_inferencer import IMG_EXTENSIONS
from mmdet.structures import DetDataSample
from mmdet.utils import get_test_pipeline_cfg
from mmengine.config import Config, DictAction
from mmengine.device import get_device
from mmengine.runner import CheckpointLoader
from torch import Tensor, nn

from mmdet_contrast.utils.checkpoint import find_misfits, name_classes, refuse_misfits
from mmdet_contrast.utils.config import errors_in_one_line, load_config
from mmdet_contrast.utils.files import PathLike, check_image, load_image
from mmdet_contrast.utils.model import build_detector, model_section
from mmdet_contrast.utils.picture_extent import tell_padding
from mmdet_contrast.utils.safe_loading import add_trust_option, trust_checkpoints


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


class UnusablePicture(ValueError):
    """A picture that a test pipeline cannot prepare; the message says why."""


class SavedPicture(NamedTuple):
    """What became of one picture that was to be drawn.

    Attributes:
        image (str): The image file.
        out_file (str, optional): The picture, or None where nothing was drawn.
        note (str): What is drawn, or why nothing is.
        readable (bool): False where the file is no whole image, or one that the test pipeline
            cannot prepare.
    """

    image: str
    out_file: Optional[str]
    note: str
    readable: bool = True


def load_detector(
    config: Union[PathLike, Config],
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
        LaunchError: If the config does not exist, or the checkpoint does not fit it.
    """
    cfg = load_config(config, cfg_options=cfg_options)
    student = cfg.model.get('student')
    if student is not None:
        cfg.model = model_section(student, cfg.get('data_preprocessor'))
    model = build_detector(cfg)
    weights = CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu')
    refuse_misfits(find_misfits(model, weights))
    model.dataset_meta = name_classes(model, weights, cfg)
    model.cfg = cfg
    for module in model.modules():
        if getattr(module, 'with_cp', False):
            # it saves the memory of trainings, and heat maps need gradients that it cuts off
            module.with_cp = False
    return model.to(device or get_device())


def prepare_picture(pipeline: Compose, data: Dict[str, Any], size: Tuple[int, int]) -> dict:
    """Run a test pipeline on one picture.

    Args:
        pipeline (Compose): The pipeline.
        data (dict): What it is given.
        size (tuple[int, int]): Width and height of the picture in pixels.

    Returns:
        dict: What it returns.

    Raises:
        UnusablePicture: If it cannot resize the picture, or work with its values. Other errors are
            those of the config, and pass.
    """
    try:
        return pipeline(data)
    except (cv2.error, ValueError, MemoryError) as error:
        reason = ' '.join(f'{type(error).__name__}: {error}'.split())
        raise UnusablePicture(
            f'the test pipeline cannot prepare {size[0]} x {size[1]} pixels: {reason}'
        ) from error


def read_images(detector: nn.Module, inputs: str) -> Iterator[Union[DetectorInput, SavedPicture]]:
    """Prepare images one by one with the detector's own test pipeline.

    Args:
        detector (nn.Module): As :func:`load_detector` returns it.
        inputs (str): An image, or a folder with images, which come in the order of their names;
            hidden files are left out.

    Yields:
        DetectorInput | SavedPicture: The image; or, of a file that cannot be read or prepared, the
        note that says so.

    Raises:
        FileNotFoundError: If there is no such path, or the folder has no image.
    """
    pipeline = Compose(tell_padding(get_test_pipeline_cfg(detector.cfg)))
    for path in _list_images(inputs):
        try:
            # finds what is cut off, which OpenCV fills with grey
            check_image(path)
            picture = load_image(path)[..., ::-1]
            data = prepare_picture(pipeline, dict(img_path=path, img_id=0), picture.shape[1::-1])
        except (OSError, UnusablePicture) as error:
            yield SavedPicture(path, None, f'cannot be used: {error}', False)
            continue
        batch = dict(inputs=[data['inputs']], data_samples=[data['data_samples']])
        batch = detector.data_preprocessor(batch, False)
        yield DetectorInput(path, picture, batch['inputs'], batch['data_samples'][0])


def _list_images(path: str) -> List[str]:
    """List an image, or the images of a folder."""
    if osp.isfile(path):
        return [path]
    names = sorted(os.listdir(path)) if osp.isdir(path) else []
    # macOS leaves '._a.jpg' beside 'a.jpg' on foreign disks
    names = [n for n in names if n.lower().endswith(IMG_EXTENSIONS) and not n.startswith('.')]
    paths = [osp.join(path, name) for name in names if not osp.isdir(osp.join(path, name))]
    if not paths:
        raise FileNotFoundError(f'{path!r} is neither an image nor a folder that has one.')
    return paths


def run_pictures(
    parser: argparse.ArgumentParser,
    draw: Callable[[nn.Module, argparse.Namespace], Iterator[SavedPicture]],
) -> None:
    """Add the options of detector, images and pictures, and draw.

    Prints a line for each picture. Ends the process with one line and exit status 1 where a file
    cannot be used, and with exit status 1 at the end where an image could not be read or prepared.

    Args:
        parser (argparse.ArgumentParser): Parser with the program's own arguments.
        draw (Callable): Gets the detector and all arguments, and yields what became of each
            picture.
    """
    parser.add_argument('config', help='config file of the detector')
    parser.add_argument('checkpoint', help='its weights')
    parser.add_argument('inputs', help='image, or folder of images')
    parser.add_argument('--out-dir', required=True, help='folder for the pictures')
    parser.add_argument(
        '--modules',
        nargs='+',
        default=['neck'],
        metavar='PATH',
        help='dotted paths, e.g. backbone.layer3 neck.fpn_convs.0 (default: neck)',
    )
    parser.add_argument(
        '--level', type=int, help='which map of a module that gives several (default: all)'
    )
    parser.add_argument('--device', help='e.g. cpu or cuda:1 (default: a GPU if there is one)')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='key=value')
    add_trust_option(parser)
    args = parser.parse_args()
    written, unreadable = 0, 0
    with errors_in_one_line(parser):
        os.makedirs(args.out_dir, exist_ok=True)
        with trust_checkpoints(args.trust_checkpoint):
            detector = load_detector(args.config, args.checkpoint, args.device, args.cfg_options)
        for saved in draw(detector, args):
            print(f'{saved.out_file or saved.image}: {saved.note}', flush=True)
            written += saved.out_file is not None
            unreadable += not saved.readable
    print(f'{written} pictures in {args.out_dir}')
    if unreadable:
        print(f'{parser.prog}: {unreadable} images failed, see above', file=sys.stderr)
        raise SystemExit(1)
