"""Detection in images, folders, videos and from cameras: what ``tools/infer.py`` does."""

import os
import sys
from collections import deque
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple, Union

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.apis import DetInferencer
from mmdet.structures import DetDataSample
from mmengine.config import Config
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch import nn

from mmdet_contrast.datasets.converters._coco import image_size

from .checkpoint_checks import check_weights
from .detector_checks import check_device, check_is_dict, name_classes
from .launch import load_config
from .launch_checks import LaunchError, check_checkpoint, explained
from .stream_sources import Frame, FrameSource, find_sources
from .stream_writers import (
    Detections,
    FrameSizeError,
    ResultWriter,
    open_writer,
    prepare_folder,
)

__all__ = ['InferenceReport', 'infer']

_Source = Union[str, int, 'os.PathLike[str]']


@dataclass
class InferenceReport:
    """What an inference did.

    Attributes:
        images (int): Images that were looked at.
        frames (int): Frames of videos and cameras that were looked at.
        detections (int): Objects found in them.
        skipped (list[str]): What could not be read, or not drawn as one video, a sentence each.
        interrupted (bool): Whether it was stopped (Ctrl-C, or a key in the window).
    """

    images: int = 0
    frames: int = 0
    detections: int = 0
    skipped: List[str] = field(default_factory=list)
    interrupted: bool = False

    @property
    def exit_status(self) -> int:
        """int: 0; 1 where something was skipped; 130 after an interruption."""
        return 130 if self.interrupted else int(bool(self.skipped))

    def __str__(self) -> str:
        counts = [f'{self.images} images'] if self.images or not self.frames else []
        counts += [f'{self.frames} frames'] if self.frames else []
        text = f'{" and ".join(counts)}, {self.detections} objects'
        if self.skipped:
            text += f', {len(self.skipped)} skipped'
        return text + (', interrupted' if self.interrupted else '')


class _Inferencer(DetInferencer):
    """MMDetection's inferencer, for one frame after the other, with checked weights and names."""

    def load(self, path: str) -> np.ndarray:
        """Read an image as the test pipeline does; what is cut off is damaged, too."""
        image_size(path, verify=True)
        try:
            loaded = self._file_loader()(dict(img_path=path))
        except (AssertionError, ValueError, cv2.error) as error:
            raise OSError((str(error).splitlines() or [type(error).__name__])[0]) from error
        if loaded is None:
            raise OSError('it cannot be decoded')
        return loaded['img']

    def run(
        self, source: FrameSource, batch_size: int
    ) -> Iterator[Tuple[List[Frame], List[DetDataSample]]]:
        """Yield the frames of a source in batches, each with what the model finds."""
        waiting: deque = deque()
        # the pipeline takes an array as it is: what its loader does to a file is missing
        color_type = getattr(self._file_loader(), 'color_type', 'color')
        grey = source.is_stream and color_type.startswith('grayscale')

        def images() -> Iterator[np.ndarray]:
            for frame in frames:
                waiting.append(frame)
                yield cv2.cvtColor(frame.image, cv2.COLOR_BGR2GRAY) if grey else frame.image

        with closing(source.frames(self.load)) as frames:
            for _, data in self.preprocess(images(), batch_size=batch_size):
                samples = self.forward(data)
                yield [waiting.popleft() for _ in samples], samples

    def draw(
        self, frames: Sequence[Frame], samples: List[DetDataSample], score_thr: float
    ) -> List[np.ndarray]:
        """Draw detections: (H, W, 3) uint8 BGR pictures of the frames' sizes."""
        # an array that comes from the caller is taken for RGB
        images = [_as_rgb(frame.image) for frame in frames]
        drawn = self.visualize(images, samples, return_vis=True, pred_score_thr=score_thr)
        return [np.ascontiguousarray(picture[..., ::-1]) for picture in drawn]

    def describe(self, samples: List[DetDataSample], score_thr: float) -> List[Detections]:
        """Describe the objects that were found as plain values, for each frame."""
        names = self.model.dataset_meta['classes']
        found = []
        for sample in samples:
            if 'pred_instances' not in sample:
                # a panoptic model's segments have no scores: they are only drawn
                found.append([])
                continue
            result = self.pred2dict(DetDataSample(pred_instances=sample.pred_instances))
            masks = result.get('masks')
            entries = []
            for i, score in enumerate(result['scores']):
                if score < score_thr:
                    continue
                entry = dict(name=names[result['labels'][i]], score=score, box=result['bboxes'][i])
                if masks is not None:
                    entry['mask'] = masks[i]
                entries.append(entry)
            found.append(entries)
        return found

    def _file_loader(self) -> BaseTransform:
        return next(t.from_file for t in self.pipeline.transforms if hasattr(t, 'from_file'))

    def _load_weights_to_model(
        self, model: nn.Module, checkpoint: Optional[dict], cfg: Config
    ) -> None:
        check_is_dict(checkpoint)
        # a wrapper's checkpoint is its student's
        check_weights(getattr(model, 'student', model), checkpoint)
        named = dict(
            checkpoint.get('meta') or {}, dataset_meta=name_classes(model, checkpoint, cfg)
        )
        checkpoint = dict(checkpoint, meta=named)
        super()._load_weights_to_model(model, checkpoint, cfg)

    def _init_visualizer(self, cfg: Config) -> Any:
        # Whatever the config draws with: a frame keeps its size, and nothing goes to its backends.
        cfg.visualizer = dict(type='DetLocalVisualizer', name='stream_inference')
        return super()._init_visualizer(cfg)


def infer(
    config: Union[str, 'os.PathLike[str]', Config],
    checkpoint: str,
    source: Union[_Source, Sequence[_Source]],
    out_dir: str,
    score_thr: float = 0.3,
    batch_size: int = 1,
    recursive: bool = False,
    every: int = 1,
    max_frames: Optional[int] = None,
    device: Optional[str] = None,
    draw: bool = True,
    save_json: bool = True,
    show: bool = False,
    progress: bool = True,
    cfg_options: Optional[Dict[str, Any]] = None,
) -> InferenceReport:
    """Detect objects in images, videos and from cameras, and write what was found.

    Everything goes through MMDetection's ``DetInferencer``: the config's test pipeline, the model's
    ``test_step``, MMDetection's drawing. Frames are read, looked at and written one batch after the
    other, so that a video of any length needs the memory of one batch. What is written where:
    :class:`mmdet_contrast.utils.stream_writers.ResultWriter`. A detection is ``name``, ``score``
    and ``box`` (x1, y1, x2, y2 in pixels of the original picture), and ``mask`` (COCO's run-length
    code) where the model gives masks.

    Args:
        config (str | PathLike | Config): Config of a detector; a contrastive one and one of
            distillation (its student) are detectors like any other.
        checkpoint (str): Checkpoint file or URL.
        source (str | int | PathLike | Sequence): See :func:`find_sources`.
        out_dir (str): Folder to write to; made if absent.
        score_thr (float): Least score of what is drawn and written. Defaults to 0.3.
        batch_size (int): Pictures in a forward pass. Defaults to 1.
        recursive (bool): Whether folders include those below them. Defaults to False.
        every (int): Of videos and cameras, take every n-th frame. Defaults to 1.
        max_frames (int, optional): Most frames to take of a video or camera.
        device (str, optional): Such as ``'cuda:0'``. Defaults to the GPU if there is one.
        draw (bool): Whether to write pictures and videos. Defaults to True.
        save_json (bool): Whether to write JSON. Defaults to True.
        show (bool): Whether to show the pictures in a window; ``q`` or Esc ends it. Defaults to
            False.
        progress (bool): Whether to show the progress. Defaults to True.
        cfg_options (dict, optional): Dotted config keys and their new values.

    Returns:
        InferenceReport: Counts, and what was skipped.

    Raises:
        LaunchError: If the config or the checkpoint cannot be used, or do not fit each other.
        ValueError: If an option is out of range, or there is no display to show pictures on.
        OSError: If a source does not exist or does not open, or results cannot be written or would
            take the place of a source.

    Example:
        >>> report = infer('configs/yolov8/yolov8_n_shapes.py', 'epoch_15.pth', 'clip.mp4', 'out')
        >>> report.frames
        120
    """
    if not 0 <= score_thr <= 1:
        raise ValueError(f'score_thr is {score_thr}, but a score lies in [0, 1].')
    if batch_size < 1:
        raise ValueError(f'batch_size is {batch_size}, but must be at least 1.')
    if not (draw or save_json or show):
        raise ValueError('neither drawing, JSON nor a window is wanted: nothing would be left.')
    if show and sys.platform == 'linux' and not {'DISPLAY', 'WAYLAND_DISPLAY'} & set(os.environ):
        raise ValueError('there is no display to show pictures on: leave out --show.')
    given = [source] if isinstance(source, (str, int, os.PathLike)) else list(source)
    check_checkpoint(checkpoint, 'checkpoint')
    cfg = load_config(config, cfg_options=cfg_options)
    sources = find_sources(given, recursive, every, max_frames)
    # before anything is made: a writer refuses to take the place of a source
    kept = {os.path.realpath(file) for item in sources for file in item.files}
    writers = [open_writer(item, out_dir, draw, save_json, kept) for item in sources]
    if draw or save_json:
        prepare_folder(out_dir)
    inferencer = _build(cfg, checkpoint, device)
    report = InferenceReport()
    try:
        for item, writer in zip(sources, writers):
            with _Bar(item, progress) as bar:
                _run(inferencer, item, writer, report, bar, score_thr, batch_size, show)
    except KeyboardInterrupt:
        report.interrupted = True
    finally:
        if show:
            # an OpenCV without windows fails here, too, and would hide what `_show` says
            with suppress(cv2.error):
                cv2.destroyAllWindows()
    return report


def _as_rgb(image: np.ndarray) -> np.ndarray:
    """What was loaded, whatever its channels, as the (H, W, 3) uint8 that is drawn on."""
    if image.ndim == 2:
        image = image[..., None]
    # grey levels become grey; beyond the three colours there may be an alpha channel
    rgb = image[..., 2::-1] if image.shape[2] >= 3 else image[..., :1].repeat(3, axis=2)
    return rgb.clip(0, 255).astype(np.uint8)


def _build(cfg: Config, checkpoint: str, device: Optional[str]) -> _Inferencer:
    if cfg.get('model') is None or cfg.get('test_dataloader') is None:
        raise LaunchError(
            f'config {cfg.filename!r} has no model or no test_dataloader, whose pipeline prepares '
            'the pictures: give the config of a detector.'
        )
    if device is not None:
        check_device(device)
    with explained(cfg):
        return _Inferencer(
            cfg,
            os.fspath(checkpoint),
            device=device,
            scope=cfg.get('default_scope', 'mmdet'),
            show_progress=False,
        )


def _run(
    inferencer: _Inferencer,
    source: FrameSource,
    writer: ResultWriter,
    report: InferenceReport,
    bar: '_Bar',
    score_thr: float,
    batch_size: int,
    show: bool,
) -> None:
    """Look at a source; what is wrong with one of several is noted, and the rest is done."""
    try:
        source.open()
    except OSError as error:
        report.skipped.append(str(error))
        return
    bar.begin(source.total)
    done = 0
    try:
        with writer:
            for frames, samples in inferencer.run(source, batch_size):
                pictures: Sequence[Optional[np.ndarray]] = [None] * len(frames)
                if writer.draw or show:
                    pictures = inferencer.draw(frames, samples, score_thr)
                found = inferencer.describe(samples, score_thr)
                for frame, detections, picture in zip(frames, found, pictures):
                    writer.write(frame, detections, picture)
                    done += 1
                    report.detections += len(detections)
                    if show:
                        _show(source, picture)
                bar.at(done + len(source.failures))
    except FrameSizeError as error:
        report.skipped.append(str(error))
    finally:
        report.skipped += source.failures
        if source.is_stream:
            report.frames += done
        else:
            report.images += done


class _Bar:
    """A bar with the time left where the length is known, else a counter."""

    def __init__(self, source: FrameSource, visible: bool) -> None:
        self._name = source.name if source.is_stream else 'images'
        self._visible = visible
        self._progress: Optional[Progress] = None

    def __enter__(self) -> '_Bar':
        return self

    def __exit__(self, *_: Any) -> None:
        if self._progress is not None:
            self._progress.stop()

    def begin(self, total: Optional[int]) -> None:
        """Show the bar, or the counter where the number of frames is unknown."""
        left = [BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
        counter = [TextColumn('{task.completed} frames'), TimeElapsedColumn()]
        self._progress = Progress(
            TextColumn('{task.description}'),
            *(counter if total is None else left),
            console=Console(stderr=True),
            disable=not self._visible,
        )
        self._task = self._progress.add_task(self._name, total=total)
        self._progress.start()

    def at(self, completed: int) -> None:
        """Move to a number of frames."""
        self._progress.update(self._task, completed=completed)


def _show(source: FrameSource, picture: np.ndarray) -> None:
    """Show a picture; an image until a key is pressed."""
    try:
        cv2.imshow('mmdet_contrast', picture)
        key = cv2.waitKey(1 if source.is_stream else 0) & 0xFF
    except cv2.error as error:
        raise ValueError(
            'this OpenCV cannot open a window (opencv-python-headless?): leave out --show.'
        ) from error
    if key in (27, ord('q')):
        raise KeyboardInterrupt
