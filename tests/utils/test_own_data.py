"""One's own data in the shipped configs: what the settings are, and that they train."""

import json

import mmcv
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.runner import Runner

from mmdet_contrast.utils.config import config_path

CLASSES = ('bolt', 'nut', 'washer')
CONFIG = """
_base_ = __import__('mmdet_contrast').config_path('{base}')
locals().update(__import__('mmdet_contrast').own_data({arguments}))
"""


def write_config(folder, base, arguments, more=''):
    path = folder / 'my_data.py'
    path.write_text(CONFIG.format(base=base, arguments=arguments) + more)
    return path


@pytest.fixture(scope='module')
def parts(tmp_path_factory):
    """A folder of pictures with one coloured rectangle per class, annotated in COCO JSON."""
    root, random = tmp_path_factory.mktemp('parts'), np.random.RandomState(0)
    (root / 'annotations').mkdir()
    for split, number in dict(train=4, val=2, test=2).items():
        images, boxes = [], []
        for i in range(number):
            picture = random.randint(0, 60, (96, 96, 3)).astype(np.uint8)
            for label in range(3):
                x, y = 2 + 32 * label, int(random.randint(2, 60))
                picture[y : y + 28, x : x + 28, label] = 220
                boxes.append(
                    dict(
                        id=len(boxes) + 1,
                        image_id=i,
                        category_id=label + 1,
                        bbox=[x, y, 28, 28],
                        area=784,
                        iscrowd=0,
                    )
                )
            name = f'{split}_{i}.jpg'
            mmcv.imwrite(picture, str(root / 'JPEGImages' / name))
            images.append(dict(id=i, file_name=name, width=96, height=96))
        categories = [dict(id=i + 1, name=name) for i, name in enumerate(CLASSES)]
        content = dict(images=images, annotations=boxes, categories=categories)
        (root / f'annotations/{split}.json').write_text(json.dumps(content))
    return root


@pytest.mark.parametrize(
    'base',
    ['retina_bccd.py', 'retina_contrast_coco.py', 'yolov8_n_bccd.py', 'yolov8_n_coco.py'],
)
def test_settings_of_a_detector(base, tmp_path):
    path = write_config(tmp_path, base, "'data/parts', ('bolt', 'nut')")
    cfg, before = Config.fromfile(path), Config.fromfile(config_path(base))
    for split in ('train', 'val', 'test'):
        loader = cfg[f'{split}_dataloader']
        data = loader.dataset
        assert data.data_root == 'data/parts/'
        assert data.ann_file == f'annotations/{split}.json'
        assert data.data_prefix == dict(img='JPEGImages/')
        assert data.metainfo == dict(classes=('bolt', 'nut'))
        # the rest is the base's
        was = before[f'{split}_dataloader']
        assert data.pipeline == was.dataset.pipeline and loader.batch_size == was.batch_size
        if split != 'train':
            evaluator = cfg[f'{split}_evaluator']
            assert evaluator.ann_file == f'data/parts/annotations/{split}.json'
            assert evaluator.type == 'CocoMetric'
    before.model.bbox_head.num_classes = 2
    assert cfg.model == before.model


def test_everything_can_be_set(tmp_path):
    arguments = (
        "'/data/parts/', 'bolt', train='a.json', val='/b.json', test='/b.json', "
        "images=dict(train='one/', val='two/', test='two/')"
    )
    more = "train_dataloader['batch_size'] = 7\n"
    cfg = Config.fromfile(write_config(tmp_path, 'retina_contrast_bccd.py', arguments, more))
    assert cfg.metainfo == dict(classes=('bolt',)) and cfg.model.bbox_head.num_classes == 1
    train, val = cfg.train_dataloader, cfg.val_dataloader.dataset
    assert train.batch_size == 7 and train.dataset.ann_file == 'a.json'
    assert train.dataset.data_prefix.img == 'one/' and val.data_prefix.img == 'two/'
    assert val.ann_file == cfg.val_evaluator.ann_file == cfg.test_evaluator.ann_file == '/b.json'
    # as MMEngine keeps it in the work_dir
    cfg.dump(tmp_path / 'dumped.py')
    assert Config.fromfile(tmp_path / 'dumped.py').to_dict() == cfg.to_dict()


@pytest.mark.parametrize(
    'base',
    [
        'retina_contrast_bccd.py',
        pytest.param('yolov8_n_bccd.py', marks=pytest.mark.slow),
    ],
)
def test_trains_and_evaluates(base, parts, tmp_path):
    cfg = Config.fromfile(write_config(tmp_path, base, f'{str(parts)!r}, {CLASSES}'))
    cfg.work_dir = str(tmp_path / 'run')
    cfg.experiment_name = f'{tmp_path.name}'
    cfg.train_cfg.update(max_epochs=1, val_interval=1)
    cfg.train_dataloader.batch_size = 2
    # after two iterations all scores are low, and without detections there are no metrics
    cfg.model.test_cfg.score_thr = 0.0
    cfg.visualizer = dict(
        type='DetLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')], name=cfg.work_dir
    )
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].dataset.pipeline = [
            dict(step, scale=(96, 96)) if step.type == 'Resize' else step
            for step in cfg[f'{split}_dataloader'].dataset.pipeline
        ]
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert runner.iter == 2
    (log,) = (tmp_path / 'run').glob('*/vis_data/scalars.json')
    first = json.loads(log.read_text().splitlines()[0])
    assert ('loss_contrast_p3' in first) is ('contrast' in base)
    found = runner.test()
    # a metric for every class, by the names given
    assert {f'coco/{name}_precision' for name in CLASSES} <= set(found)
