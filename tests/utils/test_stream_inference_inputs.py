"""Grey-level and panoptic detectors, and sources given as paths, in ``infer``."""

import json
from pathlib import Path

import cv2
import mmcv
import numpy as np
import pytest
import torch
from mmdet.apis import inference_detector, init_detector
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData

from mmdet_contrast.utils import stream_inference
from mmdet_contrast.utils.stream_inference import infer

SIZE = 64
NAMES = ('red', 'green', 'blue')


def make_detector(repo_root, folder, grey):
    """An untrained YOLOv8 and its checkpoint."""
    init_default_scope('mmdet')
    cfg = Config.fromfile(str(repo_root / 'configs/yolov8/yolov8_n_shapes.py'))
    for step in cfg.test_dataloader.dataset.pipeline:
        if 'scale' in step:
            step['scale'] = (SIZE, SIZE)
    cfg.merge_from_dict({'model.test_cfg': dict(score_thr=0.0, max_per_img=6)})
    if grey:
        cfg.test_dataloader.dataset.pipeline[0].color_type = 'grayscale'
        cfg.model.data_preprocessor.update(mean=[0.0], std=[255.0], bgr_to_rgb=False)
        cfg.model.backbone.in_channels = 1
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    config, checkpoint = str(folder / 'detector.py'), str(folder / 'detector.pth')
    meta = dict(dataset_meta=dict(classes=NAMES))
    torch.save(dict(meta=meta, state_dict=model.state_dict()), checkpoint)
    cfg.dump(config)
    return config, checkpoint


@pytest.fixture(scope='module')
def grey_detector(repo_root, tmp_path_factory):
    return make_detector(repo_root, tmp_path_factory.mktemp('grey'), grey=True)


@pytest.fixture(scope='module')
def colour_detector(repo_root, tmp_path_factory):
    return make_detector(repo_root, tmp_path_factory.mktemp('colour'), grey=False)


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """A grey picture, dark on the left and bright on the right, and a coloured video."""
    folder = tmp_path_factory.mktemp('files')
    ramp = np.tile(np.arange(0, 4 * SIZE, 4, dtype=np.uint8), (48, 1))
    cv2.imwrite(str(folder / 'ramp.pgm'), ramp)
    path = str(folder / 'clip.mp4')
    writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*'mp4v'), 10.0, (SIZE, 48))
    for i in range(3):
        picture = np.zeros((48, SIZE, 3), np.uint8)
        cv2.rectangle(picture, (5 * i, 10), (5 * i + 20, 40), (0, 200, 255), -1)
        writer.write(picture)
    writer.release()
    return folder


def results(folder, name):
    text = (folder / 'results' / name).read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_grey_picture_is_drawn_as_it_is(grey_detector, files, tmp_path):
    path = str(files / 'ramp.pgm')
    report = infer(*grey_detector, path, str(tmp_path), 1.0, progress=False)
    assert report.images == 1 and report.exit_status == 0
    drawn = cv2.imread(str(tmp_path / 'pictures' / 'ramp.pgm.png'))
    np.testing.assert_array_equal(drawn, cv2.imread(path))


def test_grey_detector_in_a_video(grey_detector, files, tmp_path):
    video = str(files / 'clip.mp4')
    report = infer(*grey_detector, video, str(tmp_path), 0.0, device='cpu', progress=False)
    assert report.frames == 3 and report.detections == 18
    model = init_detector(*grey_detector, device='cpu', cfg_options={})
    for frame, line in zip(mmcv.VideoReader(video), results(tmp_path, 'clip.mp4.jsonl')):
        grey = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
        wanted = inference_detector(model, grey).pred_instances.cpu().numpy()
        found = line['detections']
        assert [entry['score'] for entry in found] == pytest.approx(wanted.scores, abs=1e-5)
        np.testing.assert_allclose([entry['box'] for entry in found], wanted.bboxes, atol=1e-3)
    # what is drawn on keeps its colours
    infer(*grey_detector, video, str(tmp_path / 'b'), 1.0, progress=False)
    for picture in mmcv.VideoReader(str(tmp_path / 'b' / 'videos' / 'clip.mp4')):
        assert (picture[..., 2].astype(int) - picture[..., 0]).max() > 150


@pytest.mark.parametrize('shape', [(4, 6), (4, 6, 1), (4, 6, 3), (4, 6, 4)])
def test_pictures_of_any_channels(shape):
    image = np.arange(np.prod(shape), dtype=np.float32).reshape(shape) * 4
    rgb = stream_inference._as_rgb(image)
    assert rgb.shape == (4, 6, 3) and rgb.dtype == np.uint8
    channels = image.reshape(4, 6, -1).clip(0, 255).astype(np.uint8)
    order = (2, 1, 0) if channels.shape[2] >= 3 else (0, 0, 0)
    for channel, source in enumerate(order):
        np.testing.assert_array_equal(rgb[..., channel], channels[..., source])


def test_panoptic_model_without_instances(colour_detector, files, tmp_path, monkeypatch):
    def segment(self, data, **_):
        found = []
        for sample in data['data_samples']:
            segments = torch.zeros((1, *sample.ori_shape), dtype=torch.int64)
            # class 1, the first of its instances
            segments[:, :, SIZE // 2 :] = 1001
            found.append(DetDataSample(pred_panoptic_seg=PixelData(sem_seg=segments)))
        return found

    monkeypatch.setattr(stream_inference._Inferencer, 'forward', segment)
    path = str(files / 'ramp.pgm')
    report = infer(*colour_detector, path, str(tmp_path), 0.0, progress=False)
    assert (report.images, report.detections, report.exit_status) == (1, 0, 0)
    assert json.loads((tmp_path / 'results' / 'ramp.pgm.json').read_text())['detections'] == []
    drawn = cv2.imread(str(tmp_path / 'pictures' / 'ramp.pgm.png'))
    assert drawn.shape == (48, SIZE, 3) and (drawn != cv2.imread(path)).any()


@pytest.mark.parametrize('several', [False, True])
def test_sources_given_as_paths(several, colour_detector, files, tmp_path):
    source = Path(files)
    if several:
        source = [files / 'ramp.pgm', files / 'clip.mp4']
    report = infer(*colour_detector, source, str(tmp_path), draw=False, progress=False)
    assert (report.images, report.frames, report.skipped) == (1, 3, [])
