"""Write what Ultralytics' YOLOv8 computes on made-up weights to tests/data/yolov8_reference.npz.

Ultralytics is licensed under the AGPL-3.0: it is imported here to compare with, never copied, and
neither the package nor its tests need it. Install it in an environment of its own (Python 3.11):

    python3.11 -m venv /path/to/oracle
    /path/to/oracle/bin/pip install torch==2.13.0 numpy==2.4.6 opencv-python==5.0.0.93 \
        pyyaml requests scipy pandas matplotlib pillow tqdm psutil py-cpuinfo
    /path/to/oracle/bin/pip install --no-deps ultralytics==8.2.103
    /path/to/oracle/bin/python tests/oracle/generate_yolov8_reference.py

``--no-deps`` because it asks for torchvision, of which nothing but ``nms`` is needed
(torchvision_stub.py stands in), and for numpy < 2, without need. The version is pinned because
later ones enlarge boxes smaller than 16 pixels before they assign points to them.

With ``ULTRALYTICS_PYTHON=/path/to/oracle/bin/python`` in the environment,
tests/models/detectors/test_yolov8_parity.py generates the reference afresh and compares it with the
stored one.
"""

import argparse
import importlib.metadata
import json
import os
import tempfile
from pathlib import Path

os.environ.setdefault('YOLO_CONFIG_DIR', tempfile.mkdtemp(prefix='yolo_settings_'))

import numpy as np  # noqa: E402
import recipes  # noqa: E402
import torch  # noqa: E402
import torchvision_stub  # noqa: E402
import weights  # noqa: E402

torchvision_stub.install()

from ultralytics.cfg import get_cfg  # noqa: E402
from ultralytics.nn.tasks import DetectionModel  # noqa: E402
from ultralytics.utils.loss import v8DetectionLoss  # noqa: E402
from ultralytics.utils.ops import non_max_suppression  # noqa: E402

VERSION = '8.2.103'
OUT = Path(__file__).resolve().parents[1] / 'data' / 'yolov8_reference.npz'


def build(arch: str) -> DetectionModel:
    """Build a model with the weights of weights.py."""
    model = DetectionModel(f'yolov8{arch}.yaml', ch=3, nc=recipes.NUM_CLASSES, verbose=False)
    model.args = get_cfg()
    filled = weights.fill({k: tuple(v.shape) for k, v in model.state_dict().items()})
    model.load_state_dict({k: torch.from_numpy(np.asarray(v)) for k, v in filled.items()})
    return model


def split(maps):
    """Split raw maps into box distributions and class logits."""
    return [m.split((4 * recipes.REG_MAX, recipes.NUM_CLASSES), 1) for m in maps]


def to_batch(objects, size):
    """Give objects the form that the loss expects: normalised centres, widths and heights."""
    _, height, width = size
    scale = np.array([width, height, width, height], dtype=np.float64)
    boxes = np.concatenate([o.boxes for o in objects]).astype(np.float64) / scale
    centred = np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], 1)
    index = np.repeat(np.arange(len(objects)), [len(o.boxes) for o in objects])
    return dict(
        batch_idx=torch.from_numpy(index).float(),
        cls=torch.from_numpy(np.concatenate([o.labels for o in objects])).float(),
        bboxes=torch.from_numpy(centred).float(),
    )


def forward(out):
    """Outputs of backbone, neck and head, and buffers after a step in train mode."""
    for arch in recipes.ARCHS:
        for size in recipes.FORWARD_SIZES:
            for mode in ('eval', 'train'):
                model = build(arch).train(mode == 'train')
                seen = {}
                for index in recipes.LAYERS:
                    model.model[index].register_forward_hook(
                        lambda _, __, output, index=index, seen=seen: seen.update(
                            {index: output.clone()}
                        )
                    )
                with torch.no_grad():
                    result = model(torch.from_numpy(recipes.images(size)))
                raw = result if mode == 'train' else result[1]
                prefix = f'{arch}/{"x".join(map(str, size))}/{mode}'
                found = {f'{prefix}/layer{index}': seen[index] for index in seen}
                for level, (reg, cls) in enumerate(split(raw)):
                    found[f'{prefix}/reg{level}'], found[f'{prefix}/cls{level}'] = reg, cls
                if mode == 'train':
                    state = model.state_dict()
                    found.update({f'{prefix}/{key}': state[key] for key in recipes.BUFFERS})
                out.update({k: recipes.summarise(k, v.numpy()) for k, v in found.items()})
        shapes = {k: list(v.shape) for k, v in build(arch).state_dict().items()}
        out[f'{arch}/shapes'] = np.array(json.dumps(shapes))
    with torch.no_grad():
        raw = build('n').eval()(torch.from_numpy(recipes.images(recipes.TINY_SIZE)))[1]
    for level, (reg, cls) in enumerate(split(raw)):
        out[f'n/tiny/reg{level}'], out[f'n/tiny/cls{level}'] = reg.numpy(), cls.numpy()


def boxes(out):
    """Boxes after decoding and NMS: of a whole model, and of maps with objects."""
    model = build('n').eval()
    settings = dict(conf_thres=0.001, iou_thres=0.7, multi_label=True, max_det=300)
    objects = recipes.targets('nms', recipes.NMS_SIZE, (12, 8), (20, 200))
    maps = recipes.raw_maps('nms', recipes.NMS_SIZE, objects, background=-11)
    with torch.no_grad():
        whole = model(torch.from_numpy(recipes.images(recipes.NMS_SIZE)))[0]
        joined = [torch.from_numpy(np.concatenate(pair, 1)) for pair in zip(*maps)]
        from_maps = model.model[-1]._inference(joined)
    for name, decoded in (('model', whole), ('maps', from_maps)):
        # The limit on time would cut the result on a slow machine.
        results = non_max_suppression(decoded.clone(), max_time_img=1000, **settings)
        for image, found in enumerate(results):
            print(f'nms/{name}/{image}: {len(found)} boxes')
            out[f'nms/{name}/{image}'] = found.numpy()


def refuse_ties(criterion, maps, batch, total, case):
    """Refuse inputs for which the loss depends on how torch.topk orders equal values.

    An object with fewer than ten points of a positive metric is given points whose metric is 0,
    whichever come first, and these can move a point from one object to another.
    """
    assigner = criterion.assigner
    select = assigner.select_topk_candidates
    assigner.select_topk_candidates = lambda metrics, **kwargs: (
        select(metrics, **kwargs) * (metrics > 0)
    )
    without, _ = criterion([m.detach() for m in maps], batch)
    del assigner.select_topk_candidates
    if not torch.allclose(without, total, rtol=1e-6):
        raise SystemExit(f'loss/{case} depends on ties ({total} or {without}): change its recipe.')


def losses(out):
    """The loss and its gradients: on raw maps for every case, and through a whole model."""
    criterion = v8DetectionLoss(build('n').train())
    for case, (counts, sides) in recipes.LOSS_CASES.items():
        objects = recipes.targets(case, recipes.LOSS_SIZE, counts, sides)
        maps = recipes.raw_maps(case, recipes.LOSS_SIZE, objects)
        leaves = [torch.from_numpy(np.concatenate(pair, 1)).requires_grad_() for pair in zip(*maps)]
        total, items = criterion(leaves, to_batch(objects, recipes.LOSS_SIZE))
        total.backward()
        refuse_ties(criterion, leaves, to_batch(objects, recipes.LOSS_SIZE), total, case)
        print(f'loss/{case}: {total.item():.6g}', items.tolist())
        out[f'loss/{case}/items'] = np.array([*items.tolist(), total.item()])
        for level, leaf in enumerate(leaves):
            for kind, grad in zip(('reg', 'cls'), split([leaf.grad])[0]):
                name = f'loss/{case}/{kind}{level}'
                out[name] = recipes.summarise(name, grad.numpy(), 150)
                top = recipes.largest(grad.numpy())
                out[f'{name}/top'] = top.astype(np.int32)
                out[f'{name}/top_values'] = grad.numpy().reshape(-1)[top]
    model = build('n').train()
    size = recipes.MODEL_LOSS_SIZE
    objects = recipes.targets('model', size, (6, 3), (12, 120))
    total, items = v8DetectionLoss(model)(
        model(torch.from_numpy(recipes.images(size))), to_batch(objects, size)
    )
    total.backward()
    print(f'loss/model: {total.item():.6g}', items.tolist())
    out['loss/model/items'] = np.array([*items.tolist(), total.item()])
    parameters = dict(model.named_parameters())
    for key in recipes.GRADIENTS:
        name = f'loss/model/{key}'
        out[name] = recipes.summarise(name, parameters[key].grad.numpy())


def main() -> None:
    """Generate and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', default=str(OUT), help='file to write')
    args = parser.parse_args()
    installed = importlib.metadata.version('ultralytics')
    if installed != VERSION:
        raise SystemExit(f'ultralytics {installed} is installed, but the pinned one is {VERSION}.')
    out = {'version': np.array(VERSION)}
    forward(out)
    boxes(out)
    losses(out)
    unfinished = f'{args.out}.tmp.npz'
    np.savez_compressed(unfinished, **out)
    os.replace(unfinished, args.out)
    print(f'{args.out}: {os.path.getsize(args.out)} bytes')


if __name__ == '__main__':
    main()
