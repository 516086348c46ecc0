"""The Visdom backend against a real server on loopback, and without one."""

import json
import math
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from knn_runs import tiny_config
from mmdet.registry import VISBACKENDS
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.runner import Runner

visdom = pytest.importorskip('visdom')

SENTENCE = 'No Visdom server answers at http://127.0.0.1:{} ({}): curves and pictures'


def free_port():
    with socket.socket() as sock:
        sock.bind(('127.0.0.1', 0))
        return sock.getsockname()[1]


class Server:
    """A Visdom server, which keeps its pages in a folder."""

    def __init__(self, folder):
        self.folder, self.port = folder, free_port()
        # not `python -m visdom.server`, which begins with downloads for its page
        command = [sys.executable, '-c', 'from visdom.server.run_server import main; main()']
        command += ['-port', str(self.port), '-env_path', str(folder), '-bind_local']
        with (folder / 'server.txt').open('w') as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=out)
        for _ in range(600):
            with socket.socket() as sock:
                if not sock.connect_ex(('127.0.0.1', self.port)):
                    return
            assert self.process.poll() is None, (folder / 'server.txt').read_text()
            time.sleep(0.1)
        raise AssertionError('the server does not start')

    def windows(self, env):
        client = visdom.Visdom('http://127.0.0.1', port=self.port, use_incoming_socket=False)
        return json.loads(client.get_window_data(env=env))

    def stop(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope='module')
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp('visdom'))
    yield server
    server.stop()


@pytest.fixture
def warned(monkeypatch):
    messages = []
    monkeypatch.setattr(MMLogger.get_current_instance(), 'warning', messages.append)
    return messages


def backend(folder, port, **kwargs):
    options = dict(server='http://127.0.0.1', port=port, **kwargs)
    cfg = dict(type='VisdomVisBackend', save_dir=str(folder), init_kwargs=options)
    return VISBACKENDS.build(cfg)


def lines(window):
    return {line['name']: (line['x'], line['y']) for line in window['content']['data']}


def fill(vis):
    """Show something of each kind."""
    vis.add_config(Config(dict(model=dict(type='a<b'))))
    vis.add_scalars({'loss': torch.tensor(3.0), 'time': 0.5}, step=10)
    vis.add_scalars({'loss': np.float32(2), 'coco/bbox_mAP_copypaste': '0.1 0.2'}, step=20)
    vis.add_scalar('loss', float('inf'), step=30)
    vis.add_scalar('loss', 1, step=40)
    # validation counts epochs
    vis.add_scalars({'coco/bbox_mAP': 0.25, 'time': 0.1}, step=1)
    vis.add_scalars({'time': 0.6}, step=20)
    vis.add_scalars({'coco/bbox_mAP': 0.5, 'time': 0.2}, step=2)
    for step, value in ((10, 0), (20, 255)):
        vis.add_image('val_img', np.full((8, 16, 3), value, np.uint8), step)


def check(windows):
    assert set(windows) == {'config', 'loss', 'time', 'coco/bbox_mAP', 'val_img'}
    assert all(window['title'] == name for name, window in windows.items())
    assert '<pre>' in windows['config']['content'] and 'a&lt;b' in windows['config']['content']
    assert lines(windows['loss']) == {'loss': ([10, 20, 30, 40], [3, 2, None, 1])}
    assert lines(windows['coco/bbox_mAP']) == {'coco/bbox_mAP': ([1, 2], [0.25, 0.5])}
    assert lines(windows['time']) == {
        'time': ([10, 20], [0.5, 0.6]),
        'time (2)': ([1, 2], [0.1, 0.2]),
    }
    images = windows['val_img']['content']
    assert [image['caption'] for image in images] == ['step 10', 'step 20']
    assert all(image['src'].startswith('data:image/jpeg;base64,') for image in images)
    assert len({image['src'] for image in images}) == 2


def test_windows_on_a_server(server, tmp_path, capfd):
    before = threading.active_count()
    vis = backend(tmp_path / 'my_run/20260101_000000/vis_data', server.port)
    fill(vis)
    check(server.windows('my_run_20260101_000000'))
    assert isinstance(vis.experiment, visdom.Visdom)
    vis.close()
    # the server has it on its disk, and the backend goes on
    assert (server.folder / 'my_run_20260101_000000.json').is_file()
    vis.add_scalar('loss', 0.5, step=50)
    windows = server.windows('my_run_20260101_000000')
    assert lines(windows['loss'])['loss'][0] == [10, 20, 30, 40, 50]
    assert threading.active_count() == before
    assert capfd.readouterr() == ('', '')


def test_without_a_server_a_file_is_written_and_can_be_shown_later(server, tmp_path, warned, capfd):
    port = free_port()
    vis = backend(tmp_path / 'alone/20260101_000000/vis_data', port)
    fill(vis)
    vis.close()
    (warning,) = warned
    assert warning.startswith(SENTENCE.format(port, 'ConnectionError'))
    file = tmp_path / 'alone/20260101_000000/vis_data/visdom.log'
    assert str(file) in warning
    assert capfd.readouterr() == ('', '')
    client = visdom.Visdom('http://127.0.0.1', port=server.port, use_incoming_socket=False)
    client.replay_log(str(file))
    check(server.windows('alone_20260101_000000'))


def test_a_server_that_goes_away(server, tmp_path, warned):
    (tmp_path / 'server').mkdir()
    other = Server(tmp_path / 'server')
    vis = backend(tmp_path, other.port, env='lost')
    vis.add_scalar('loss', 3, step=1)
    assert lines(other.windows('lost')['loss']) == {'loss': ([1], [3])}
    other.stop()
    vis.add_scalar('loss', 2, step=2)
    vis.add_scalar('loss', 1, step=3)
    assert len(warned) == 1
    # nothing is missing in the file
    client = visdom.Visdom('http://127.0.0.1', port=server.port, use_incoming_socket=False)
    client.replay_log(str(tmp_path / 'visdom.log'))
    assert lines(server.windows('lost')['loss']) == {'loss': ([1, 2, 3], [3, 2, 1])}


def test_a_server_of_another_kind(tmp_path, warned):
    """One that answers with an error takes nothing."""
    code = (
        'import http.server, sys; h = http.server.BaseHTTPRequestHandler; '
        's = http.server.HTTPServer(("127.0.0.1", 0), h); print(s.server_port, flush=True); '
        's.serve_forever()'
    )
    command = [sys.executable, '-c', code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            port = int(process.stdout.readline())
            backend(tmp_path, port).add_scalar('a', 1)
        finally:
            process.kill()
    assert [text.startswith(SENTENCE.format(port, 'HTTPError')) for text in warned] == [True]
    assert json.loads((tmp_path / 'visdom.log').read_text())[1]['data'][0]['y'] == [1]


def test_a_server_that_hangs(tmp_path, warned, monkeypatch):
    monkeypatch.setattr('mmdet_contrast.visualization.visdom_backend._TIMEOUT', (1, 0.1))
    with socket.socket() as sock:
        sock.bind(('127.0.0.1', 0))
        sock.listen()
        port = sock.getsockname()[1]
        backend(tmp_path, port).add_scalar('a', 1)
    assert [text.startswith(SENTENCE.format(port, 'ReadTimeout')) for text in warned] == [True]


def test_a_run_shows_its_curves(server, tiny_shapes, tmp_path):
    cfg = tiny_config(tiny_shapes, tmp_path, [], max_epochs=1)
    options = dict(server='http://127.0.0.1', port=server.port)
    cfg.visualizer.vis_backends = [dict(type='VisdomVisBackend', init_kwargs=options)]
    runner = Runner.from_cfg(cfg)
    runner.train()
    windows = server.windows(f'{tmp_path.name}_{runner.timestamp}')
    assert {'config', 'loss', 'loss_cls', 'loss_bbox', 'lr'} <= set(windows)
    steps, losses = lines(windows['loss'])['loss']
    assert steps == [1, 2, 3] and all(map(math.isfinite, losses))
