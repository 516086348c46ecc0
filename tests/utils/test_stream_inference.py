"""Detection in images, videos and from cameras, against MMDetection's ``inference_detector``."""

import json
import runpy
import shutil
import sys
from types import SimpleNamespace

import cv2
import mmcv
import numpy as np
import pytest
import torch
from mmdet.apis import inference_detector, init_detector
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmdet_contrast.utils import stream_inference
from mmdet_contrast.utils.launch_checks import LaunchError
from mmdet_contrast.utils.stream_inference import infer
from mmdet_contrast.utils.stream_sources import Frame, find_sources
from mmdet_contrast.utils.stream_writers import open_writer

SIZE = 64
FPS = 12.5
NAMES = ('red', 'green', 'blue')
CONFIGS = {
    'contrastive': 'retina_contrast_shapes.py',
    'distillation': 'distill/shapes20/shapes20_cwd_kl.py',
    'yolov8': 'yolov8/yolov8_n_shapes.py',
}


@pytest.fixture(scope='module')
def detectors(repo_root, tmp_path_factory):
    """Config, checkpoint and class names of an untrained detector of each kind."""
    init_default_scope('mmdet')
    root = tmp_path_factory.mktemp('detectors')
    made = {}
    for kind, file in CONFIGS.items():
        cfg = Config.fromfile(str(repo_root / 'configs' / file))
        for step in cfg.test_dataloader.dataset.pipeline:
            if 'scale' in step:
                step['scale'] = (SIZE, SIZE)
        test_cfg = dict(score_thr=0.0, max_per_img=6)
        options = {'model.test_cfg': test_cfg}
        if kind == 'distillation':
            options = {'model.student.test_cfg': test_cfg}
        cfg.merge_from_dict(options)
        torch.manual_seed(0)
        model = MODELS.build(cfg.model)
        detector = getattr(model, 'student', model)
        detector.init_weights()
        number = detector.bbox_head.num_classes
        for name, parameter in detector.named_parameters():
            # scores that differ, so that a threshold parts them
            if 'cls' in name and name.endswith('bias') and parameter.numel() % number == 0:
                parameter.data.normal_(std=0.5)
        names = NAMES if number == 3 else tuple(f'type {i}' for i in range(number))
        path = str(root / f'{kind}.pth')
        meta = dict(dataset_meta=dict(classes=names))
        torch.save(dict(meta=meta, state_dict=model.state_dict()), path)
        cfg.dump(str(root / f'{kind}.py'))
        made[kind] = (str(root / f'{kind}.py'), path, names)
    return made


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    """A folder of two images, a damaged one, a cut one and a text, and a folder below."""
    root = tmp_path_factory.mktemp('images') / 'a folder'
    (root / 'below').mkdir(parents=True)
    rng = np.random.default_rng(0)
    shapes = {'one.png': (48, 64), 'two.jpg': (70, 41), 'below/three.png': (64, 64)}
    for name, shape in shapes.items():
        picture = rng.integers(0, 255, (*shape, 3), dtype=np.uint8)
        cv2.imwrite(str(root / name), picture)
    (root / 'broken.png').write_bytes(b'no picture')
    (root / 'cut.jpg').write_bytes((root / 'two.jpg').read_bytes()[:-400])
    (root / 'notes.txt').write_text('no picture')
    return root


def write_video(path, frames, fourcc='mp4v', size=(SIZE, 48)):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*fourcc), FPS, size)
    assert writer.isOpened()
    for i in range(frames):
        picture = np.full((size[1], size[0], 3), 20 * i % 255, np.uint8)
        cv2.rectangle(picture, (4 * i % 40, 10), (4 * i % 40 + 20, 40), (0, 200, 255), -1)
        writer.write(picture)
    writer.release()
    return str(path)


@pytest.fixture(scope='module')
def video(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp('videos') / 'clip.mp4', 10)


class FakeCamera:
    """What ``cv2.VideoCapture`` offers, at 10 frames a second; frame 2 is damaged."""

    made = []

    def __init__(self, index, opened=True, length=6):
        self.opened, self.length, self.at, self.released = opened, length, -1, False
        FakeCamera.made.append(self)

    def isOpened(self):
        return self.opened

    def set(self, *_):
        return True

    def get(self, what):
        # the number of frames of a camera is nonsense
        return {cv2.CAP_PROP_FPS: 10.0, cv2.CAP_PROP_FRAME_COUNT: -1.0}[what]

    def grab(self):
        self.at += 1
        return self.at < self.length

    def retrieve(self):
        if self.at == 2:
            return False, None
        return True, np.full((48, SIZE, 3), 30 * self.at, np.uint8)

    def release(self):
        self.released = True


@pytest.fixture
def camera(monkeypatch):
    FakeCamera.made = []
    monkeypatch.setattr(cv2, 'VideoCapture', FakeCamera)
    return FakeCamera


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


def middle_score(model, picture):
    scores = inference_detector(model, picture).pred_instances.scores
    return float(scores.sort().values[len(scores) // 2]) - 1e-4


@pytest.mark.parametrize('kind', sorted(CONFIGS))
def test_image_and_video_as_inference_detector(kind, detectors, images, video, tmp_path):
    config, checkpoint, names = detectors[kind]
    # options, because it looks for model.backbone otherwise
    model = init_detector(config, checkpoint, device='cpu', cfg_options={})
    picture = str(images / 'two.jpg')
    score_thr = middle_score(model, picture)
    report = infer(
        config, checkpoint, [picture, video], str(tmp_path), score_thr, device='cpu', progress=False
    )
    wanted = expected(model, picture, names, score_thr)
    assert 0 < len(wanted) < 6
    (path,) = tmp_path.rglob('two.jpg.json')
    result = json.loads(path.read_text())
    assert (result['image'], result['width'], result['height']) == (picture, 41, 70)
    agree(result['detections'], wanted)

    frames = list(mmcv.VideoReader(video))
    assert [line['frame'] for line in lines(tmp_path)] == list(range(10))
    total = len(wanted)
    for index, (frame, line) in enumerate(zip(frames, lines(tmp_path))):
        found = expected(model, frame, names, score_thr)
        agree(line['detections'], found)
        assert line['time'] == pytest.approx(index / FPS)
        total += len(found)
    assert (report.images, report.frames, report.detections) == (1, 10, total)
    assert report.exit_status == 0


def test_pictures_are_drawn(detectors, images, video, tmp_path):
    config, checkpoint, _ = detectors['yolov8']
    infer(config, checkpoint, str(images / 'one.png'), str(tmp_path), 0.0, progress=False)
    drawn, original = (
        cv2.imread(str(path)) for path in (tmp_path / 'pictures' / 'one.png', images / 'one.png')
    )
    assert drawn.shape == original.shape
    changed = (drawn != original).any(axis=2).mean()
    assert 0 < changed < 1
    # nothing found: the picture, colours and all, is as it was
    infer(config, checkpoint, str(images / 'one.png'), str(tmp_path / 'b'), 1.0, progress=False)
    assert (cv2.imread(str(tmp_path / 'b' / 'pictures' / 'one.png')) == original).all()


def test_video_keeps_size_rate_and_number(detectors, video, tmp_path):
    config, checkpoint, _ = detectors['yolov8']
    infer(config, checkpoint, video, str(tmp_path), 1.0, batch_size=3, progress=False)
    made = mmcv.VideoReader(str(tmp_path / 'videos' / 'clip.mp4'))
    original = mmcv.VideoReader(video)
    assert (made.fps, made.resolution) == (original.fps, original.resolution)
    pairs = list(zip(made, original))
    assert len(pairs) == len(list(mmcv.VideoReader(str(tmp_path / 'videos' / 'clip.mp4')))) == 10
    for one, other in pairs:
        assert abs(one.astype(int) - other.astype(int)).mean() < 8
    assert not list(tmp_path.rglob('.*'))


def test_every_and_max_frames(detectors, video, tmp_path):
    config, checkpoint, _ = detectors['yolov8']
    report = infer(config, checkpoint, video, str(tmp_path), every=3, max_frames=3, progress=False)
    assert report.frames == 3
    found = lines(tmp_path)
    assert [line['frame'] for line in found] == [0, 3, 6]
    assert [line['time'] for line in found] == pytest.approx([0, 3 / FPS, 6 / FPS])
    made = mmcv.VideoReader(str(tmp_path / 'videos' / 'clip.mp4'))
    assert made.fps == pytest.approx(FPS / 3, abs=1e-3)
    assert len(list(made)) == 3
    (source,) = find_sources([video], every=3)
    assert source.total == 4
    assert [frame.index for frame in source.frames(None)] == [0, 3, 6, 9]


def test_batches_change_nothing(detectors, images, tmp_path):
    config, checkpoint, _ = detectors['yolov8']
    results = []
    for size in (1, 3):
        out = tmp_path / str(size)
        report = infer(
            config,
            checkpoint,
            str(images),
            str(out),
            0.0,
            batch_size=size,
            recursive=True,
            draw=False,
            progress=False,
        )
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


def test_damaged_images_are_named_and_counted(detectors, images, tmp_path):
    config, checkpoint, _ = detectors['yolov8']
    report = infer(config, checkpoint, str(images), str(tmp_path), progress=False)
    assert report.images == 2
    assert report.exit_status == 1
    assert len(report.skipped) == 2
    for name, line in zip(('broken.png', 'cut.jpg'), sorted(report.skipped)):
        assert line.startswith(f'{images / name}: not a readable image (')
    assert '2 images' in str(report) and str(report).endswith(', 2 skipped')
    assert {path.name for path in (tmp_path / 'pictures').iterdir()} == {'one.png', 'two.jpg'}


def test_video_that_is_cut_off(detectors, tmp_path):
    path = tmp_path / 'cut.avi'
    content = open(write_video(tmp_path / 'whole.avi', 40, 'MJPG'), 'rb').read()
    path.write_bytes(content[: len(content) // 2])
    config, checkpoint, _ = detectors['yolov8']
    report = infer(config, checkpoint, str(path), str(tmp_path / 'out'), draw=False, progress=False)
    assert 5 < report.frames < 35
    assert len(lines(tmp_path / 'out')) == report.frames
    (line,) = report.skipped
    assert f'ends after {report.frames} of 40 frames' in line
    assert report.exit_status == 1


def test_damaged_video_among_others(detectors, video, tmp_path):
    folder = tmp_path / 'folder'
    folder.mkdir()
    (folder / 'a.mp4').write_bytes(b'no video')
    (folder / 'b.mp4').write_bytes(open(video, 'rb').read())
    config, checkpoint, _ = detectors['yolov8']
    report = infer(config, checkpoint, str(folder), str(tmp_path / 'out'), progress=False)
    assert report.frames == 10
    assert len(report.skipped) == 1 and 'a.mp4' in report.skipped[0]


def test_camera(detectors, camera, tmp_path):
    config, checkpoint, _ = detectors['yolov8']
    report = infer(config, checkpoint, 0, str(tmp_path), progress=False)
    # the camera ends after six frames, of which one is damaged
    assert report.frames == 5
    assert [line['frame'] for line in lines(tmp_path)] == [0, 1, 3, 4, 5]
    assert report.skipped == ['camera 0: frame 2 cannot be decoded']
    assert camera.made[0].released
    (path,) = (tmp_path / 'videos').iterdir()
    assert path.name.startswith('camera0_') and path.suffix == '.mp4'


def test_video_of_a_camera_runs_in_real_time(tmp_path):
    source = SimpleNamespace(
        files=[], is_stream=True, paced=True, name='camera0', path='camera 0', rate=10.0
    )
    picture = np.zeros((48, SIZE, 3), np.uint8)
    with open_writer(source, str(tmp_path), draw=True, save_json=False) as writer:
        for index, seconds in enumerate((0.0, 0.1, 0.5, 0.55, 1.2)):
            shown = picture + np.uint8(50 * index)
            writer.write(Frame(shown, 'camera0', 'camera 0', index, seconds), [], shown)
    made = list(mmcv.VideoReader(str(tmp_path / 'videos' / 'camera0.mp4')))
    levels = [round(frame.mean() / 50) for frame in made]
    assert levels == [0, 1, 1, 1, 1, 2, 3, 3, 3, 3, 3, 3, 4]


def test_interruption_leaves_whole_files(detectors, camera, monkeypatch, tmp_path):
    config, checkpoint, _ = detectors['yolov8']
    grab = FakeCamera.grab

    def interrupted(self):
        if self.at == 3:
            raise KeyboardInterrupt
        return grab(self)

    monkeypatch.setattr(FakeCamera, 'grab', interrupted)
    report = infer(config, checkpoint, '0', str(tmp_path), progress=False)
    assert report.interrupted and report.exit_status == 130
    assert report.frames == 3
    assert len(lines(tmp_path)) == 3
    assert camera.made[0].released
    monkeypatch.undo()
    (path,) = (tmp_path / 'videos').iterdir()
    assert len(list(mmcv.VideoReader(str(path)))) >= 3


def test_interruption_while_the_model_works(detectors, video, monkeypatch, tmp_path):
    config, checkpoint, _ = detectors['yolov8']
    forward = stream_inference._Inferencer.forward
    calls = []

    def interrupted(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(stream_inference._Inferencer, 'forward', interrupted)
    report = infer(config, checkpoint, video, str(tmp_path), batch_size=2, progress=False)
    assert report.interrupted and report.frames == 4
    assert [line['frame'] for line in lines(tmp_path)] == [0, 1, 2, 3]
    assert len(list(mmcv.VideoReader(str(tmp_path / 'videos' / 'clip.mp4')))) == 4


def test_camera_that_does_not_open(camera, monkeypatch):
    monkeypatch.setattr(cv2, 'VideoCapture', lambda index: FakeCamera(index, opened=False))
    with pytest.raises(OSError, match='camera 7 does not open'):
        find_sources(['7'])


def test_camera_without_a_picture(camera, monkeypatch):
    monkeypatch.setattr(cv2, 'VideoCapture', lambda index: FakeCamera(index, length=0))
    (source,) = find_sources(['0'])
    assert list(source.frames(None)) == []
    assert source.failures == ['camera 0: it opens, but gives no picture']


def test_what_is_found(images, video, tmp_path):
    pattern = str(images / '*.jpg').replace('a folder', 'a*')
    sources = find_sources([pattern, str(images / 'one.png'), video])
    assert [source.is_stream for source in sources] == [False, True]
    assert [source.total for source in sources] == [3, 10]
    assert sources[1].name.endswith('clip.mp4')
    with pytest.raises(FileNotFoundError, match="'absent.jpg' does not exist"):
        find_sources(['absent.jpg'])
    with pytest.raises(FileNotFoundError, match='no file matches the pattern'):
        find_sources([str(tmp_path / '*.png')])
    with pytest.raises(FileNotFoundError, match='none of them an image or a video'):
        find_sources([str(images / '*.txt')])
    (tmp_path / 'inner').mkdir()
    with pytest.raises(FileNotFoundError, match='holds no image .*--recursive'):
        find_sources([str(tmp_path)])
    with pytest.raises(OSError, match='notes.txt.* is neither an image .* nor a video'):
        find_sources([str(images / 'notes.txt')])
    with pytest.raises(ValueError, match='every is 0'):
        find_sources([video], every=0)


def test_what_does_not_fit_is_refused(detectors, images, tmp_path, monkeypatch):
    config, checkpoint, _ = detectors['yolov8']
    picture, out = str(images / 'one.png'), str(tmp_path / 'out')

    def refused(match, error=LaunchError, file=config, weights=checkpoint, **options):
        with pytest.raises(error, match=match):
            infer(file, weights, picture, options.pop('out_dir', out), progress=False, **options)

    refused('does not fit the model', weights=detectors['contrastive'][1])
    refused('does not fit the model', file=detectors['contrastive'][0])
    refused("checkpoint 'absent.pth' does not exist", weights='absent.pth')
    refused("config file 'absent.py' does not exist", file='absent.py')
    (tmp_path / 'bad.pth').write_bytes(b'no weights')
    refused('damaged or not a checkpoint', weights=str(tmp_path / 'bad.pth'))
    state = torch.load(checkpoint, weights_only=False)
    torch.save(dict(state, meta=dict(dataset_meta=dict(classes=('a', 'b')))), tmp_path / 'two.pth')
    refused('the checkpoint names 2 classes .* the head has 3', weights=str(tmp_path / 'two.pth'))
    refused("device 'nonsense' cannot be used", device='nonsense')
    refused('score_thr is 2', ValueError, score_thr=2)
    refused('batch_size is 0', ValueError, batch_size=0)
    refused('nothing would be left', ValueError, draw=False, save_json=False)
    (tmp_path / 'file').write_text('')
    refused('cannot be written to', OSError, out_dir=str(tmp_path / 'file'))
    refused('cannot be written to', OSError, out_dir=str(tmp_path / 'file' / 'out'))
    for name in ('DISPLAY', 'WAYLAND_DISPLAY'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, 'platform', 'linux')
    refused('there is no display', ValueError, show=True)
    assert not (tmp_path / 'out' / 'results').exists()


def test_source_pictures_are_never_overwritten(detectors, images, tmp_path, monkeypatch):
    config, checkpoint, _ = detectors['yolov8']
    folder = tmp_path / 'pictures'
    folder.mkdir()
    content = (images / 'one.png').read_bytes()
    (folder / 'one.png').write_bytes(content)
    monkeypatch.setattr(stream_inference, '_build', lambda *_: pytest.fail('built too early'))
    with pytest.raises(OSError, match='would take the place of'):
        infer(config, checkpoint, str(folder), str(tmp_path), progress=False)
    assert (folder / 'one.png').read_bytes() == content


@pytest.mark.parametrize('source', ['videos', 'videos/clip.mp4'])
def test_source_videos_are_never_overwritten(detectors, video, tmp_path, monkeypatch, source):
    config, checkpoint, _ = detectors['yolov8']
    (tmp_path / 'videos').mkdir()
    path = tmp_path / 'videos' / 'clip.mp4'
    with open(video, 'rb') as file:
        content = file.read()
    path.write_bytes(content)
    monkeypatch.setattr(stream_inference, '_build', lambda *_: pytest.fail('built too early'))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OSError, match="place of './videos/clip.mp4', which is one of the so"):
        infer(config, checkpoint, source, '.', progress=False)
    # nothing is written to ask, and JSON alone would do no harm
    assert [entry.name for entry in tmp_path.rglob('*')] == ['videos', 'clip.mp4']
    assert path.read_bytes() == content
    (found,) = find_sources([source])
    open_writer(found, '.', draw=False, save_json=True)


def test_sources_are_not_overwritten_by_the_results_of_others(
    detectors, video, images, tmp_path, monkeypatch
):
    config, checkpoint, _ = detectors['yolov8']
    for below in ('', 'videos', 'pictures'):
        (tmp_path / below).mkdir(exist_ok=True)
    shutil.copy(video, tmp_path / 'clip.mp4')
    shutil.copy(video, tmp_path / 'videos' / 'clip.mp4')
    monkeypatch.setattr(stream_inference, '_build', lambda *_: pytest.fail('built too early'))
    with pytest.raises(OSError, match="videos/clip.mp4', which is one of the sources"):
        infer(config, checkpoint, str(tmp_path), str(tmp_path), recursive=True, progress=False)


def test_stream_of_changing_size_among_others(detectors, camera, monkeypatch, tmp_path):
    config, checkpoint, _ = detectors['yolov8']
    retrieve = FakeCamera.retrieve

    def changing(self):
        readable, image = retrieve(self)
        changed = self is FakeCamera.made[0] and self.at == 3
        return readable, image[:32] if changed else image

    monkeypatch.setattr(FakeCamera, 'retrieve', changing)
    report = infer(config, checkpoint, [0, 1], str(tmp_path), progress=False)
    # two frames of the first camera, all five of the second one
    assert report.frames == 2 + 5 and report.exit_status == 1
    (sentence,) = [text for text in report.skipped if 'cannot be decoded' not in text]
    assert "frame 3 of 'camera 0' has 64 x 32 pixels, the first one 64 x 48" in sentence
    first, second = sorted((tmp_path / 'results').iterdir())
    assert [len(path.read_text().splitlines()) for path in (first, second)] == [2, 5]
    assert len(list((tmp_path / 'videos').iterdir())) == 2


def test_what_cannot_be_written_ends_the_run(detectors, camera, tmp_path):
    config, checkpoint, _ = detectors['yolov8']
    (tmp_path / 'videos').write_text('no folder')
    with pytest.raises(FileExistsError):
        infer(config, checkpoint, [0, 1], str(tmp_path), progress=False)
    assert not (tmp_path / 'results').exists()


def test_opencv_without_windows(detectors, images, monkeypatch, tmp_path):
    config, checkpoint, _ = detectors['yolov8']

    def headless(*_):
        raise cv2.error('The function is not implemented. Rebuild the library with Windows, GTK+')

    monkeypatch.setenv('DISPLAY', ':0')
    for name in ('imshow', 'destroyAllWindows'):
        monkeypatch.setattr(cv2, name, headless)
    with pytest.raises(ValueError, match='opencv-python-headless.*leave out --show'):
        infer(config, checkpoint, str(images / 'one.png'), str(tmp_path), progress=False, show=True)


def test_class_names_of_the_config_where_the_checkpoint_has_none(detectors, images, tmp_path):
    config, checkpoint, _ = detectors['yolov8']
    plain = str(tmp_path / 'plain.pth')
    torch.save(torch.load(checkpoint, weights_only=False)['state_dict'], plain)
    infer(config, plain, str(images / 'one.png'), str(tmp_path), 0.0, progress=False)
    cfg = Config.fromfile(config)
    result = json.loads((tmp_path / 'results' / 'one.png.json').read_text())
    names = {entry['name'] for entry in result['detections']}
    assert names and names <= set(cfg.test_dataloader.dataset.metainfo.classes)


def test_command_line(detectors, images, video, tmp_path, monkeypatch, capsys, repo_root):
    config, checkpoint, _ = detectors['yolov8']

    def call(*arguments):
        monkeypatch.setattr(sys, 'argv', ['infer.py', *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(str(repo_root / 'tools' / 'infer.py'), run_name='__main__')
        return stop.value.code, capsys.readouterr()

    code, text = call(config, checkpoint, images, video, '--out-dir', tmp_path, '--no-draw')
    assert code == 1
    assert text.out.count('skipped: ') == 2
    assert '2 images and 10 frames' in text.out and 'results in' in text.out
    # the progress
    assert '4/4' in text.err and '10/10' in text.err
    assert not (tmp_path / 'pictures').exists() and not (tmp_path / 'videos').exists()
    code, text = call(config, checkpoint, 'absent.jpg', '--out-dir', tmp_path)
    assert str(code).startswith("infer.py: error: 'absent.jpg' does not exist")
    code, text = call(
        config,
        checkpoint,
        video,
        '--out-dir',
        tmp_path / 'b',
        '--no-json',
        '--max-frames',
        2,
        '--no-progress',
    )
    assert code == 0 and text.err == ''
    assert not (tmp_path / 'b' / 'results').exists()
