"""Detection in images, folders, videos and from cameras: what ``tools/infer.py`` does."""

import os
import sys
from contextlib import closing
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple, Union

import cv2
import numpy as np
import torch
from mmcv.transforms import Compose
from mmdet.registry import TRANSFORMS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import encode_mask_results
from mmdet.utils import get_test_pipeline_cfg
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from tqdm import tqdm

from mmdet_contrast.utils.config import LaunchError, load_config
from mmdet_contrast.utils.files import PathLike, check_image
from mmdet_contrast.utils.safe_loading import trust_checkpoints
from mmdet_contrast.visualization.canvas import DrawnBox, draw_boxes, palette, to_array, to_rgb
from mmdet_contrast.visualization.detector_input import (
    UnusablePicture,
    load_detector,
    prepare_picture,
)

from .frame_sources import Frame, FrameSource, VideoStream, find_sources
from .frame_writers import Detections, ImageWriter, StreamWriter

_Source = Union[str, int, 'os.PathLike[str]']


@dataclass
class InferenceReport:
    """What an inference did.

    Attributes:
        images (int): Images that were looked at.
        frames (int): Frames of videos and cameras that were looked at.
        detections (int): Objects found in them.
        skipped (list[str]): What could not be read, or not be prepared by the test pipeline.
        interrupted (bool): Whether it was stopped (Ctrl-C, or a key in the window).
    """

    images: int = 0
    frames: int = 0
    detections: int = 0
    skipped: List[str] = field(default_factory=list)
    interrupted: bool = False

    def __str__(self) -> str:
        text = f'{self.images} images and {self.frames} frames, {self.detections} objects'
        text += f', {len(self.skipped)} skipped' if self.skipped else ''
        return text + (', interrupted' if self.interrupted else '')


def infer(
    config: Union[PathLike, Config],
    checkpoint: str,
    source: Union[_Source, Sequence[_Source]],
    out_dir: str,
    score_thr: float = 0.3,
    batch_size: int = 1,
    max_frames: Optional[int] = None,
    device: Optional[str] = None,
    draw: bool = True,
    show: bool = False,
    cfg_options: Optional[Dict[str, Any]] = None,
    trust_checkpoint: bool = False,
) -> InferenceReport:
    """Detect objects in images, videos and from cameras, and write what was found.

    What MMDetection's ``DetInferencer`` does to a list of images, for streams of any length: frames
    are read, looked at and written one batch after the other, with the config's test pipeline and
    the model's ``test_step``. :class:`ImageWriter` and :class:`StreamWriter` say what is written
    where. A detection is ``name``, ``score`` and ``box`` (x1, y1, x2, y2 in
    pixels of the original picture), and ``mask`` (COCO's run-length code) where the model gives
    masks.

    Args:
        config (str | PathLike | Config): Config of a detector; a contrastive one and one of
            distillation (its student) are detectors like any other.
        checkpoint (str): Checkpoint file or URL.
        source (str | int | PathLike | Sequence): See :func:`find_sources`.
        out_dir (str): Folder to write to; made if absent.
        score_thr (float): Least score of what is drawn and written. Defaults to 0.3.
        batch_size (int): Pictures in a forward pass. Defaults to 1.
        max_frames (int, optional): Most frames to read of a video or camera.
        device (str, optional): Such as ``'cuda:0'``. Defaults to the GPU if there is one.
        draw (bool): Whether to write pictures and videos. Defaults to True.
        show (bool): Whether to show the pictures in a window; ``q`` or Esc ends it. Defaults to
            False.
        cfg_options (dict, optional): Dotted config keys and their new values.
        trust_checkpoint (bool): Load checkpoints with objects of any class, which can run any code.

    Returns:
        InferenceReport: Counts, and what was skipped.

    Raises:
        LaunchError: If ``batch_size`` is below 1, a source does not exist, does not open or is
            where results go, or config and checkpoint do not fit each other.

    Example:
        >>> report = infer('configs/yolov8/yolov8_n_shapes.py', 'epoch_15.pth', 'clip.mp4', 'out')
        >>> report.frames
        120
    """
    if batch_size < 1:
        raise LaunchError(f'batch_size={batch_size} given, 1 or more expected.')
    given = [source] if isinstance(source, (str, int, os.PathLike)) else list(source)
    cfg = load_config(config, cfg_options=cfg_options)
    sources = find_sources(given, max_frames)
    _keep_sources(sources, out_dir)
    os.makedirs(out_dir, exist_ok=True)
    with trust_checkpoints(trust_checkpoint):
        detector = _Detector(cfg, checkpoint, device, score_thr)
    report = InferenceReport()
    try:
        for item in sources:
            _run(detector, item, out_dir, report, batch_size, draw, show)
    except KeyboardInterrupt:
        report.interrupted = True
    finally:
        if show:
            cv2.destroyAllWindows()
    return report


class _Detector:
    """The model and test pipeline of a config, for pictures in memory."""

    def __init__(
        self, cfg: Config, checkpoint: str, device: Optional[str], score_thr: float
    ) -> None:
        self._model = load_detector(cfg, checkpoint, device)
        self._score_thr = score_thr
        meta: Any = self._model.dataset_meta
        self._names = meta['classes']
        given = meta.get('palette')
        self._colours = palette(len(self._names), given if isinstance(given, list) else ())
        steps = deepcopy(get_test_pipeline_cfg(cfg))
        self._loader = TRANSFORMS.build(steps[0])
        steps[0].type = 'mmdet.LoadImageFromNDArray'
        self._pipeline = Compose(steps)

    def load(self, path: str) -> np.ndarray:
        """Read an image as the test pipeline does."""
        # OpenCV fills what is cut off with grey
        check_image(path)
        return self._loader(dict(img_path=path))['img']

    def prepare(self, image: np.ndarray) -> dict:
        """Run the rest of the test pipeline."""
        return prepare_picture(self._pipeline, dict(img=image, img_id=0), image.shape[1::-1])

    def detect(self, data: Sequence[dict]) -> List[DetDataSample]:
        """Find objects, those below the least score left out."""
        with torch.no_grad():
            samples = self._model.test_step(pseudo_collate(data))
        for sample in samples:
            found = sample.pred_instances
            sample.pred_instances = found[found.scores >= self._score_thr]
        return samples

    def describe(self, sample: DetDataSample) -> Detections:
        """Describe the objects as plain values."""
        names = self._names
        found = sample.pred_instances.numpy()
        columns = (found.labels.tolist(), found.scores.tolist(), found.bboxes.tolist())
        entries = [dict(name=names[label], score=s, box=box) for label, s, box in zip(*columns)]
        for entry, mask in zip(entries, encode_mask_results(found.get('masks', []))):
            entry['mask'] = dict(mask, counts=mask['counts'].decode())
        return entries

    def draw(self, image: np.ndarray, sample: DetDataSample) -> np.ndarray:
        """Draw the objects: (H, W, 3) uint8 BGR."""
        # a loader may give grey levels, or an alpha channel
        picture = np.ascontiguousarray(to_rgb(image)[..., ::-1])
        found = sample.pred_instances.numpy()
        colours = [self._colours[label] for label in found.labels]
        for mask, colour in zip(to_array(found.get('masks', [])).astype(bool), colours):
            picture[mask] = picture[mask] // 2 + np.array(colour, np.uint8) // 2
        texts = [f'{self._names[label]} {s:.2f}' for label, s in zip(found.labels, found.scores)]
        draw_boxes(picture, [DrawnBox(*box) for box in zip(found.bboxes, colours, texts)])
        return np.ascontiguousarray(picture[..., ::-1])


def _keep_sources(sources: Sequence[FrameSource], out_dir: str) -> None:
    """Refuse sources that results may overwrite."""
    written = {Path(out_dir, name).resolve() for name in ('pictures', 'videos')}
    for path in (file for source in sources for file in source.files):
        if written & set(Path(path).resolve().parents):
            raise LaunchError(
                f'source {path!r} lies where the results go: give another --out-dir than {out_dir}.'
            )


def _run(
    detector: _Detector,
    source: FrameSource,
    out_dir: str,
    report: InferenceReport,
    batch_size: int,
    draw: bool,
    show: bool,
) -> None:
    """Look at one source, and add to the report."""
    is_stream = isinstance(source, VideoStream)
    writer: Union[ImageWriter, StreamWriter] = ImageWriter(out_dir)
    if isinstance(source, VideoStream):
        try:
            source.open()
        except LaunchError as error:
            # one of a folder: the others are looked at
            report.skipped.append(str(error))
            return
        writer = StreamWriter(out_dir, source)
    bar = tqdm(
        desc=source.name,
        total=source.total,
        unit='frame' if is_stream else 'image',
        file=sys.stderr,
        mininterval=0.1 if sys.stderr.isatty() else 5,
    )
    try:
        with bar, closing(writer), closing(source.frames(detector.load)) as frames:
            prepared = _prepare(detector, source, frames)
            for batch in iter(lambda: list(islice(prepared, batch_size)), []):
                samples = detector.detect([data for _, data in batch])
                for (frame, _), sample in zip(batch, samples):
                    detections = detector.describe(sample)
                    picture = detector.draw(frame.image, sample) if draw or show else None
                    writer.write(frame, detections, picture if draw else None)
                    report.images += not is_stream
                    report.frames += is_stream
                    report.detections += len(detections)
                    bar.update()
                    if show and picture is not None:
                        _show(picture, wait=not is_stream)
    finally:
        report.skipped += source.failures


def _prepare(
    detector: _Detector, source: FrameSource, frames: Iterator[Frame]
) -> Iterator[Tuple[Frame, dict]]:
    """Prepare frames for the model; those that cannot be are added to the failures."""
    for frame in frames:
        try:
            data = detector.prepare(frame.image)
        except UnusablePicture as error:
            source.failures.append(f'{frame.path}: {error}')
            if isinstance(source, VideoStream):
                # the others have the same size
                return
        else:
            yield frame, data


def _show(picture: np.ndarray, wait: bool) -> None:
    cv2.imshow('mmdet_contrast', picture)
    if cv2.waitKey(0 if wait else 1) & 0xFF in (27, ord('q')):
        raise KeyboardInterrupt
