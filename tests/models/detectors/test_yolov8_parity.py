"""YOLOv8 here against the official one, through the values that it computed (see tests/oracle)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

from mmdet_contrast import config_path
from mmdet_contrast.converters import convert_ultralytics_state_dict

TESTS = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TESTS / 'oracle'))

import recipes  # noqa: E402
import weights  # noqa: E402


@pytest.fixture(scope='module')
def reference():
    with np.load(TESTS / 'data' / 'yolov8_reference.npz') as file:
        return {key: file[key] for key in file.files}


def build(arch, reference=None):
    """Build the model of a shipped config; with a reference, fill it as the official one was."""
    init_default_scope('mmdet')
    cfg = Config.fromfile(config_path('yolov8_n_coco.py')).model
    model = MODELS.build(dict(cfg, scale=arch))
    if reference is not None:
        filled = weights.fill(json.loads(str(reference[f'{arch}/shapes'])))
        theirs = {key: torch.from_numpy(np.asarray(value)) for key, value in filled.items()}
        model.load_state_dict(convert_ultralytics_state_dict(theirs))
    return model


def our_names(reference, arch='n'):
    """Their key → ours: the values that are converted are the keys themselves."""
    keys = json.loads(str(reference[f'{arch}/shapes']))
    tagged = {key: np.full(shape, i) for i, (key, shape) in enumerate(keys.items())}
    back = {id(value): key for key, value in tagged.items()}
    return {back[id(v)]: ours for ours, v in convert_ultralytics_state_dict(tagged).items()}


def instances(objects):
    return [
        InstanceData(bboxes=torch.from_numpy(o.boxes), labels=torch.from_numpy(o.labels))
        for o in objects
    ]


def check_losses(losses, items, batch):
    """Compare with box, class, DFL (each by image) and the total (by batch)."""
    assert set(losses) == {'loss_cls', 'loss_bbox', 'loss_dfl'}
    ours = [losses[f'loss_{key}'].item() / batch for key in ('bbox', 'cls', 'dfl')]
    np.testing.assert_allclose([*ours, sum(ours) * batch], items, rtol=1e-3, atol=1e-6)


def check_gradient(name, ours, theirs, count=recipes.SAMPLES):
    """Compare to 1e-3 of the largest value; the two means first, as they are much smaller."""
    ours = recipes.summarise(name, ours, count)
    np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-3, atol=1e-12, err_msg=name)
    atol = 1e-3 * np.abs(theirs[2:]).max()
    np.testing.assert_allclose(ours[2:], theirs[2:], rtol=0, atol=atol + 1e-12, err_msg=name)
    np.testing.assert_allclose(ours[0], theirs[0], rtol=0, atol=1e-3 * theirs[1] + 1e-12)


@pytest.mark.parametrize('mode', ['eval', 'train'])
@pytest.mark.parametrize('size', recipes.FORWARD_SIZES, ids=lambda size: 'x'.join(map(str, size)))
@pytest.mark.parametrize('arch', recipes.ARCHS)
def test_outputs(reference, arch, size, mode):
    model = build(arch, reference).train(mode == 'train')
    prefix = f'{arch}/{"x".join(map(str, size))}/{mode}'
    with torch.no_grad():
        backbone = model.backbone(torch.from_numpy(recipes.images(size)))
        neck = model.neck(backbone)
        cls_scores, bbox_preds = model.bbox_head(neck)
    outputs = dict(backbone=backbone, neck=neck)
    found = {f'layer{i}': outputs[part][level] for i, (part, level) in recipes.LAYERS.items()}
    for level in range(3):
        found[f'reg{level}'], found[f'cls{level}'] = bbox_preds[level], cls_scores[level]
    if mode == 'train':
        names, state = our_names(reference, arch), model.state_dict()
        found.update({key: state[names[key]] for key in recipes.BUFFERS})
    for key, value in found.items():
        name = f'{prefix}/{key}'
        ours = recipes.summarise(name, value.numpy())
        theirs = reference[name]
        # float32 of other processors, threads and kernels differs in the fifth digit
        limit = max(1e-4, 1e-4 * np.abs(theirs).max())
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=limit, err_msg=name)


def test_whole_maps_of_a_tiny_image(reference):
    model = build('n', reference).eval()
    with torch.no_grad():
        maps = model(torch.from_numpy(recipes.images(recipes.TINY_SIZE)), mode='tensor')
    for kind, levels in zip(('cls', 'reg'), maps):
        for level, value in enumerate(levels):
            theirs = reference[f'n/tiny/{kind}{level}']
            # another processor sums in another order
            atol = 1e-5 * np.abs(theirs).max()
            np.testing.assert_allclose(value.numpy(), theirs, rtol=0, atol=atol)


@pytest.mark.parametrize('case', list(recipes.LOSS_CASES))
def test_loss_and_its_gradients(reference, case):
    counts, sides = recipes.LOSS_CASES[case]
    objects = recipes.targets(case, recipes.LOSS_SIZE, counts, sides)
    maps = recipes.raw_maps(case, recipes.LOSS_SIZE, objects)
    regs, clss = [[torch.from_numpy(m).requires_grad_() for m in levels] for levels in maps]
    metas = [dict(img_shape=recipes.LOSS_SIZE[1:])] * len(counts)
    losses = build('n').bbox_head.loss_by_feat(clss, regs, instances(objects), metas)
    check_losses(losses, reference[f'loss/{case}/items'], len(counts))
    sum(losses.values()).backward()
    for kind, levels in (('reg', regs), ('cls', clss)):
        for level, leaf in enumerate(levels):
            name = f'loss/{case}/{kind}{level}'
            check_gradient(name, leaf.grad.numpy(), reference[name], 150)
            top, theirs = reference[f'{name}/top'], reference[f'{name}/top_values']
            ours = leaf.grad.numpy().reshape(-1)[top]
            atol = 1e-3 * np.abs(theirs).max() + 1e-12
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=atol, err_msg=name)


def test_loss_and_gradients_through_a_whole_model(reference):
    model = build('n', reference).train()
    size = recipes.MODEL_LOSS_SIZE
    objects = recipes.targets('model', size, (6, 3), (12, 120))
    samples = [
        DetDataSample(gt_instances=found, metainfo=dict(img_shape=size[1:], pad_shape=size[1:]))
        for found in instances(objects)
    ]
    losses = model.loss(torch.from_numpy(recipes.images(size)), samples)
    check_losses(losses, reference['loss/model/items'], size[0])
    sum(losses.values()).backward()
    names, parameters = our_names(reference), dict(model.named_parameters())
    for key in recipes.GRADIENTS:
        name = f'loss/model/{key}'
        check_gradient(name, parameters[names[key]].grad.numpy(), reference[name])


def match_boxes(ours, theirs):
    """Pair every box with one of the same class, nearly the same score and place; give the rest."""
    rest = []
    free = np.ones(len(theirs), dtype=bool)
    for row in ours:
        near = free & (theirs[:, 5] == row[5]) & (np.abs(theirs[:, 4] - row[4]) < 1e-5)
        near &= np.abs(theirs[:, :4] - row[:4]).max(1) < 1e-2
        if near.any():
            free[near.argmax()] = False
        else:
            rest.append(row)
    return np.array(rest).reshape(-1, 6), theirs[free]


@pytest.mark.parametrize('source', ['model', 'maps'])
def test_boxes_after_decoding_and_nms(reference, source):
    size = recipes.NMS_SIZE
    model = build('n', reference).eval()
    if source == 'model':
        with torch.no_grad():
            clss, regs = model(torch.from_numpy(recipes.images(size)), mode='tensor')
    else:
        objects = recipes.targets('nms', size, (12, 8), (20, 200))
        maps = recipes.raw_maps('nms', size, objects, background=-11)
        regs, clss = [[torch.from_numpy(m) for m in levels] for levels in maps]
    metas = [dict(img_shape=size[1:], scale_factor=(1.0, 1.0))] * size[0]
    results = model.bbox_head.predict_by_feat(clss, regs, batch_img_metas=metas)
    limit = np.array([size[2], size[1]] * 2)
    for image, found in enumerate(results):
        ours = np.column_stack([found.bboxes, found.scores, found.labels])
        theirs = reference[f'nms/{source}/{image}'].copy()
        theirs[:, :4] = np.clip(theirs[:, :4], 0, limit)  # as they do after NMS
        assert len(ours) == len(theirs) > 20
        rest, free = match_boxes(ours, theirs)
        # Of boxes with the same score at the end of a full list, either may have stayed.
        last = theirs[:, 4].min() + 1e-5 if len(theirs) == 300 else 0
        assert (rest[:, 4] <= last).all() and (free[:, 4] <= last).all(), (rest, free)


@pytest.mark.skipif(
    'ULTRALYTICS_PYTHON' not in os.environ,
    reason='ULTRALYTICS_PYTHON does not name a Python with ultralytics (see tests/oracle)',
)
def test_reference_can_be_generated_again(reference, tmp_path):
    script = TESTS / 'oracle' / 'generate_yolov8_reference.py'
    out = tmp_path / 'again.npz'
    command = [os.environ['ULTRALYTICS_PYTHON'], str(script), '--out', str(out)]
    env = {k: v for k, v in os.environ.items() if not k.startswith(('PYTHON', 'VIRTUAL_ENV'))}
    subprocess.run(command, check=True, env=env)
    with np.load(out) as again:
        assert set(again.files) == set(reference)
        for key, stored in reference.items():
            new = again[key]
            if stored.dtype.kind != 'f':
                # Which of two equally large gradients comes first is a matter of rounding.
                assert key.endswith('/top') or np.array_equal(new, stored), key
            elif not key.endswith('/top_values') or np.array_equal(
                again[key[: -len('_values')]], reference[key[: -len('_values')]]
            ):
                scale = max(1, np.abs(stored).max())
                np.testing.assert_allclose(new, stored, rtol=1e-3, atol=1e-4 * scale, err_msg=key)
