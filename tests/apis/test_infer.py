"""Detection in images, videos and from cameras, against MMDetection's ``inference_detector``."""

import json
import runpy
import sys

import cv2
import mmcv
import numpy as np
import pytest
import torch
from mmdet.apis import inference_detector, init_detector
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from pycocotools import mask as coco_mask

from mmdet_contrast import config_path
from mmdet_contrast.apis.infer import infer
from mmdet_contrast.utils.config import LaunchError
from mmdet_contrast.visualization.canvas import palette

SIZE = 64
FPS = 12.5
CONFIGS = {
    'contrastive': 'retina_contrast_shapes.py',
    'distillation': '../projects/mar20/mar20_log.py',
    'yolov8': 'yolov8_n_shapes.py',
}


@pytest.fixture(scope='module')
def detectors(tmp_path_factory):
    """Config, checkpoint and class names of an untrained detector of each kind."""
    init_default_scope('mmdet')
    root = tmp_path_factory.mktemp('detectors')
    made = {}
    for kind, file in CONFIGS.items():
        cfg = Config.fromfile(config_path(file))
        for step in cfg.test_dataloader.dataset.pipeline:
            if 'scale' in step:
                step['scale'] = (SIZE, SIZE)
        detector_cfg = cfg.model.student if kind == 'distillation' else cfg.model
        detector_cfg.test_cfg.update(score_thr=0.0, max_per_img=6)
        torch.manual_seed(0)
        model = MODELS.build(cfg.model)
        detector = getattr(model, 'student', model)
        detector.init_weights()
        number = detector.bbox_head.num_classes
        for name, parameter in detector.named_parameters():
            # scores that differ, so that a threshold parts them
            if 'cls' in name and name.endswith('bias') and parameter.numel() % number == 0:
                parameter.data.normal_(std=0.5)
        names = tuple(f'type {i}' for i in range(number))
        meta = dict(dataset_meta=dict(classes=names))
        torch.save(dict(meta=meta, state_dict=model.state_dict()), root / f'{kind}.pth')
        cfg.dump(str(root / f'{kind}.py'))
        made[kind] = (str(root / f'{kind}.py'), str(root / f'{kind}.pth'), names)
    return made


@pytest.fixture
def yolo(detectors):
    return detectors['yolov8'][:2]


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    """A folder of two images, a damaged one, a cut one and a text, and a folder below."""
    root = tmp_path_factory.mktemp('images') / 'a folder'
    (root / 'below').mkdir(parents=True)
    rng = np.random.default_rng(0)
    shapes = {'one.png': (48, 64), 'two.jpg': (70, 41), 'below/three.png': (64, 64)}
    for name, shape in shapes.items():
        cv2.imwrite(str(root / name), rng.integers(0, 255, (*shape, 3), dtype=np.uint8))
    (root / 'broken.png').write_bytes(b'no picture')
    (root / 'cut.jpg').write_bytes((root / 'two.jpg').read_bytes()[:-400])
    (root / 'notes.txt').write_text('no picture')
    return root


@pytest.fixture(scope='module')
def video(tmp_path_factory):
    path = str(tmp_path_factory.mktemp('videos') / 'clip.mp4')
    writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*'mp4v'), FPS, (SIZE, 48))
    for i in range(10):
        picture = np.full((48, SIZE, 3), 20 * i, np.uint8)
        cv2.rectangle(picture, (4 * i % 40, 10), (4 * i % 40 + 20, 40), (0, 200, 255), -1)
        writer.write(picture)
    writer.release()
    return path


def lines(folder):
    (path,) = folder.rglob('*.jsonl')
    return [json.loads(line) for line in path.read_text().splitlines()]


def expected(model, picture, names, score_thr):
    found = inference_detector(model, picture).pred_instances.numpy()
    return [
        dict(name=names[label], score=score, box=box)
        for label, score, box in zip(
            found.labels.tolist(), found.scores.tolist(), found.bboxes.tolist()
        )
        if score >= score_thr
    ]


def agree(found, wanted):
    assert [entry['name'] for entry in found] == [entry['name'] for entry in wanted]
    for one, other in zip(found, wanted):
        assert set(one) == {'name', 'score', 'box'}
        assert one['score'] == pytest.approx(other['score'], abs=1e-5)
        assert one['box'] == pytest.approx(other['box'], abs=1e-3)


@pytest.mark.parametrize('kind', ['contrastive', 'distillation', 'yolov8'])
def test_image_and_video_as_inference_detector(kind, detectors, images, video, tmp_path):
    config, checkpoint, names = detectors[kind]
    # options, because it looks for model.backbone otherwise
    model = init_detector(config, checkpoint, device='cpu', cfg_options={})
    picture = str(images / 'two.jpg')
    scores = inference_detector(model, picture).pred_instances.scores
    score_thr = float(scores.sort().values[len(scores) // 2]) - 1e-4
    report = infer(config, checkpoint, [picture, video], str(tmp_path), score_thr, device='cpu')
    wanted = expected(model, picture, names, score_thr)
    assert 0 < len(wanted) < 6
    (path,) = tmp_path.rglob('two.jpg.json')
    result = json.loads(path.read_text())
    assert (result['image'], result['width'], result['height']) == (picture, 41, 70)
    agree(result['detections'], wanted)

    assert [line['frame'] for line in lines(tmp_path)] == list(range(10))
    total = len(wanted)
    for index, (frame, line) in enumerate(zip(mmcv.VideoReader(video), lines(tmp_path))):
        found = expected(model, frame, names, score_thr)
        agree(line['detections'], found)
        assert line['time'] == pytest.approx(index / FPS)
        total += len(found)
    assert (report.images, report.frames, report.detections) == (1, 10, total)


def test_pictures_are_drawn(yolo, images, tmp_path):
    infer(*yolo, images / 'one.png', str(tmp_path), 0.0)
    drawn, original = (
        cv2.imread(str(path)) for path in (tmp_path / 'pictures' / 'one.png', images / 'one.png')
    )
    assert drawn.shape == original.shape
    assert 0 < (drawn != original).any(axis=2).mean() < 1
    # nothing found: the picture, colours and all, is as it was
    infer(*yolo, images / 'one.png', str(tmp_path / 'b'), 1.0)
    assert (cv2.imread(str(tmp_path / 'b' / 'pictures' / 'one.png')) == original).all()


def test_video_keeps_size_rate_and_number(yolo, video, tmp_path):
    infer(*yolo, video, str(tmp_path), 1.0, batch_size=3)
    made = mmcv.VideoReader(str(tmp_path / 'videos' / 'clip.mp4'))
    original = mmcv.VideoReader(video)
    assert (made.fps, made.resolution) == (original.fps, original.resolution)
    made, original = list(made), list(original)
    assert len(made) == len(original) == 10
    for one, other in zip(made, original):
        assert abs(one.astype(int) - other.astype(int)).mean() < 8


def test_batches_change_nothing(yolo, images, tmp_path):
    results = []
    for size in (1, 3):
        out = tmp_path / str(size)
        folders = [images, images / 'below']
        report = infer(*yolo, folders, str(out), 0.0, batch_size=size, draw=False)
        assert report.images == 3
        assert not (out / 'pictures').exists()
        root = out / 'results'
        found = {
            path.relative_to(root).as_posix(): json.loads(path.read_text())
            for path in root.rglob('*.json')
        }
        assert set(found) == {'one.png.json', 'two.jpg.json', 'below/three.png.json'}
        results.append(found)
    for name, one in results[0].items():
        agree(one['detections'], results[1][name]['detections'])


def test_batches_hold_a_picture():
    with pytest.raises(LaunchError, match='batch_size=0 given, 1 or more'):
        infer('config.py', 'weights.pth', 'a.jpg', 'out', batch_size=0)


def test_damaged_images_are_named_and_counted(yolo, images, tmp_path):
    report = infer(*yolo, images, str(tmp_path))
    assert report.images == 2
    for name, line in zip(('broken.png', 'cut.jpg'), sorted(report.skipped)):
        assert line.startswith(f'{images / name}: not a readable image (')
    assert str(report).startswith('2 images') and str(report).endswith(', 2 skipped')
    assert {path.name for path in (tmp_path / 'pictures').iterdir()} == {'one.png', 'two.jpg'}


@pytest.mark.parametrize('batch_size', [1, 3])
def test_a_picture_that_cannot_be_resized_is_named_and_the_others_are_done(
    batch_size, yolo, images, tmp_path
):
    folder = tmp_path / 'images'
    folder.mkdir()
    for name, shape in {'a.png': (1, 1), 'b.png': (4000, 2), 'c.png': (2, 4000)}.items():
        cv2.imwrite(str(folder / name), np.full((*shape, 3), 90, np.uint8))
    cv2.imwrite(str(folder / 'd.png'), cv2.imread(str(images / 'one.png')))
    (folder / 'gone.png').symlink_to('nowhere.png')
    report = infer(*yolo, folder, str(tmp_path / 'out'), 0.0, batch_size)
    assert report.images == 2
    assert {path.name for path in (tmp_path / 'out/pictures').iterdir()} == {'a.png', 'd.png'}
    tall, wide, gone = sorted(report.skipped)
    assert tall.startswith(f'{folder}/b.png: ') and 'cannot prepare 2 x 4000 pixels: ' in tall
    assert wide.startswith(f'{folder}/c.png: ') and 'cannot prepare 4000 x 2 pixels: ' in wide
    assert gone.startswith(f'{folder}/gone.png: not a readable image')


def test_a_video_that_cannot_be_resized_is_named_once(yolo, video, monkeypatch, tmp_path):
    monkeypatch.setattr(
        cv2.VideoCapture, 'retrieve', lambda self: (True, np.zeros((2, 4000, 3), np.uint8)),
        raising=False,
    )  # fmt: skip
    report = infer(*yolo, video, str(tmp_path), 0.0)
    assert report.frames == 0
    (line,) = report.skipped
    assert line.startswith(f'{video}: the test pipeline cannot prepare 4000 x 2 pixels')


def test_colours_are_those_of_the_checkpoint_and_others(yolo, images, monkeypatch, tmp_path):
    config, checkpoint = yolo
    state = torch.load(checkpoint)
    # of three classes
    state['meta']['dataset_meta']['palette'] = [(1, 2, 250)]
    torch.save(state, str(tmp_path / 'a.pth'))
    boxes = torch.tensor([[2.0, 2, 20, 20], [30, 20, 60, 44]])
    found = InstanceData(bboxes=boxes, labels=torch.tensor([0, 2]), scores=torch.tensor([0.9, 0.8]))
    monkeypatch.setattr(
        BaseModel, 'test_step', lambda self, data: [DetDataSample(pred_instances=found)]
    )
    infer(config, str(tmp_path / 'a.pth'), images / 'one.png', str(tmp_path))
    drawn = cv2.imread(str(tmp_path / 'pictures' / 'one.png'))[..., ::-1]
    for colour in palette(3, [(1, 2, 250)])[::2]:
        assert (drawn == np.array(colour)).all(-1).sum() > 20


def test_interruption_leaves_whole_files(yolo, video, monkeypatch, tmp_path):
    test_step, calls = BaseModel.test_step, []

    def interrupted(self, data):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return test_step(self, data)

    monkeypatch.setattr(BaseModel, 'test_step', interrupted)
    report = infer(*yolo, video, str(tmp_path), batch_size=2)
    assert report.interrupted and report.frames == 4
    assert [line['frame'] for line in lines(tmp_path)] == [0, 1, 2, 3]
    assert len(list(mmcv.VideoReader(str(tmp_path / 'videos' / 'clip.mp4')))) == 4


def test_a_key_ends_the_window(yolo, video, monkeypatch, tmp_path):
    keys = iter([-1, -1, ord('q')])
    monkeypatch.setattr(cv2, 'imshow', lambda *_: None)
    monkeypatch.setattr(cv2, 'waitKey', lambda _: next(keys))
    monkeypatch.setattr(cv2, 'destroyAllWindows', lambda: None)
    report = infer(*yolo, video, str(tmp_path), draw=False, show=True)
    assert report.interrupted and report.frames == 3
    assert not (tmp_path / 'videos').exists()


def test_masks_are_run_length_codes(yolo, images, monkeypatch, tmp_path):
    masks = torch.zeros((2, 48, SIZE), dtype=torch.bool)
    masks[0, 5:20, 10:30] = True
    boxes, scores = torch.tensor([[10.0, 5, 30, 20], [0, 0, 1, 1]]), torch.tensor([0.75, 0.1])
    found = InstanceData(bboxes=boxes, labels=torch.tensor([2, 0]), scores=scores, masks=masks)
    samples = [DetDataSample(pred_instances=found)]
    monkeypatch.setattr(BaseModel, 'test_step', lambda self, data: samples)
    infer(*yolo, images / 'one.png', str(tmp_path))
    (found,) = json.loads((tmp_path / 'results/one.png.json').read_text())['detections']
    assert (found['name'], found['score'], found['box']) == ('type 2', 0.75, [10, 5, 30, 20])
    np.testing.assert_array_equal(coco_mask.decode(found['mask']), masks[0])


def test_what_does_not_fit_is_refused(detectors, yolo, images, tmp_path):
    config, checkpoint = yolo
    picture = str(images / 'one.png')
    with pytest.raises(LaunchError, match='does not fit the model'):
        infer(config, detectors['contrastive'][1], picture, str(tmp_path))
    folder = tmp_path / 'pictures'
    folder.mkdir()
    content = (images / 'one.png').read_bytes()
    (folder / 'one.png').write_bytes(content)
    with pytest.raises(LaunchError, match='one.png.* lies where the results go'):
        infer(config, checkpoint, folder, str(tmp_path))
    assert (folder / 'one.png').read_bytes() == content


def test_command_line(yolo, images, video, tmp_path, monkeypatch, capsys, repo_root):
    def call(*arguments):
        monkeypatch.setattr(sys, 'argv', ['infer.py', *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(str(repo_root / 'tools' / 'infer.py'), run_name='__main__')
        return stop.value.code, capsys.readouterr()

    code, text = call(*yolo, images, video, '--out-dir', tmp_path, '--no-draw')
    assert code == 1
    assert text.err.count('skipped: ') == 2
    # nothing but the result, the progress is elsewhere
    (line,) = text.out.splitlines()
    assert line.startswith('2 images and 10 frames') and line.endswith(f'results in {tmp_path}')
    assert '10/10' in text.err
    assert not (tmp_path / 'pictures').exists() and not (tmp_path / 'videos').exists()
    code, text = call(*yolo, video, '--out-dir', tmp_path / 'b', '--max-frames', 2)
    assert code == 0 and len(lines(tmp_path / 'b')) == 2
    code, text = call(*yolo, 'absent.jpg', '--out-dir', tmp_path)
    assert str(code).startswith("infer.py: error: source 'absent.jpg' does not exist")
