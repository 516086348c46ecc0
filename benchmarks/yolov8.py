"""YOLOv8: a training step and its parts, and an inference step, against Ultralytics.

Both have the same weights, see the same images and boxes and are timed in turns in one process:
forward in training mode; assignment and loss down to the gradient of the raw maps; backward of the
network; and inference (forward, decoding, NMS). The losses must agree to 1e-3. Peak memory is taken
in fresh processes: of the assignment alone; of a forward pass in eval mode without gradient, up to
the raw maps (it does not depend on the boxes); and of a training step without an optimizer. On a
GPU it is of what PyTorch allocates, and the kernels that a part launches and its waits for the GPU
are counted.

Ultralytics is licensed under the AGPL-3.0 and never part of this package. Without --ultralytics,
the site-packages of the environment that tests/oracle describes, our figures alone are printed.
"""

import contextlib
import importlib
import io
import itertools
import os
import sys
import tempfile
import types
from typing import Callable, Dict, List, Optional, Sequence, Tuple

import _common as common

sys.path.insert(0, str(common.ROOT / 'tests' / 'oracle'))
CLASSES = 80
BOTH = ('ours', 'Ultralytics')
MEMORY_OF = ('the assignment', 'a forward pass', 'a training step')


def load_ultralytics(path: Optional[str]) -> Optional[types.SimpleNamespace]:
    """Import what is compared with, or return None."""
    if path is not None:
        # behind all else: torch and numpy stay those of this environment
        sys.path.append(path)
    os.environ.setdefault('YOLO_CONFIG_DIR', tempfile.mkdtemp(prefix='yolo_settings_'))
    # MMDetection must look for torchvision before the stub takes its place
    importlib.import_module('mmdet.models')
    import torchvision_stub

    torchvision_stub.install()
    ops = importlib.import_module('torchvision').ops
    if path is not None and ops.nms is torchvision_stub.nms:
        # the stub's loop is for parity; the comparison is of what surrounds a compiled NMS
        from mmcv.ops import nms

        ops.nms = lambda boxes, scores, iou: nms(boxes, scores, iou)[1]
    try:
        from ultralytics.cfg import get_cfg
        from ultralytics.nn.tasks import DetectionModel
        from ultralytics.utils.loss import v8DetectionLoss
        from ultralytics.utils.ops import non_max_suppression
        from ultralytics.utils.tal import TaskAlignedAssigner
    except ImportError:
        if path is not None:
            raise
        return None
    return types.SimpleNamespace(
        get_cfg=get_cfg,
        model=DetectionModel,
        loss=v8DetectionLoss,
        nms=non_max_suppression,
        assigner=TaskAlignedAssigner,
    )


def make_batch(size: int, images: int, boxes: int, device: str) -> Tuple:
    """Return images (N, 3, size, size) in [0, 1], boxes and labels of each."""
    pictures, samples = common.random_batch(size, images, CLASSES, device, boxes)
    instances = [sample.gt_instances for sample in samples]
    return pictures, [x.bboxes for x in instances], [x.labels for x in instances]


def ours_parts(batch: Tuple, size: int, theirs: Optional[dict], device: str) -> Dict[str, Callable]:
    """Return forward, loss, backward and inference of this package, by name."""
    import torch
    from mmdet.structures import DetDataSample
    from mmengine.config import Config
    from mmengine.registry import init_default_scope
    from mmengine.structures import InstanceData

    from mmdet_contrast.converters import convert_ultralytics_state_dict

    init_default_scope('mmdet')
    cfg = Config.fromfile(str(common.ROOT / 'configs' / 'yolov8' / 'yolov8_n_coco.py'))
    model = common.build_model(cfg, device)
    if theirs is not None:
        model.load_state_dict(convert_ultralytics_state_dict(theirs))
    pictures, boxes, labels = batch
    meta = dict(img_shape=(size, size), scale_factor=(1.0, 1.0), ori_shape=(size, size))
    instances = [InstanceData(bboxes=b, labels=c) for b, c in zip(boxes, labels)]
    samples = [DetDataSample(metainfo=dict(meta, img_id=i)) for i in range(len(boxes))]

    def loss(maps: Sequence) -> torch.Tensor:
        return sum(model.bbox_head.loss_by_feat(*maps, instances, [meta] * len(boxes)).values())

    def infer() -> int:
        model.eval()
        with torch.no_grad():
            found = model.predict(pictures, samples, rescale=False)
        model.train()
        return len(found[0].pred_instances)

    return dict(forward=lambda: model(pictures), loss=loss, infer=infer, model=model)


def theirs_parts(
    yolo: types.SimpleNamespace, batch: Tuple, size: int, device: str
) -> Dict[str, Callable]:
    """Return the same of Ultralytics."""
    import numpy as np
    import torch
    import weights

    model = yolo.model('yolov8n.yaml', ch=3, nc=CLASSES, verbose=False)
    model.args = yolo.get_cfg()
    filled = weights.fill({k: tuple(v.shape) for k, v in model.state_dict().items()})
    model.load_state_dict({k: torch.from_numpy(np.asarray(v)) for k, v in filled.items()})
    # before the criterion, which takes its device from the model
    model.to(device)
    pictures, boxes, labels = batch
    joined = torch.cat(boxes) / size
    target = dict(
        batch_idx=torch.arange(len(boxes)).repeat_interleave(len(boxes[0])).float().to(device),
        cls=torch.cat(labels).float(),
        bboxes=torch.cat(((joined[:, :2] + joined[:, 2:]) / 2, joined[:, 2:] - joined[:, :2]), 1),
    )
    model.train()
    criterion = yolo.loss(model)

    def infer() -> int:
        model.eval()
        with torch.no_grad():
            found = yolo.nms(
                model(pictures)[0],
                conf_thres=0.001,
                iou_thres=0.7,
                multi_label=True,
                max_det=300,
                max_time_img=1000,
            )
        model.train()
        return len(found[0])

    return dict(
        forward=lambda: model(pictures),
        loss=lambda maps: criterion(maps, target)[0],
        infer=infer,
        model=model,
    )


def flat(maps: Sequence) -> List:
    """Return the tensors in a list of maps, or of lists of maps."""
    return [t for m in maps for t in (m if isinstance(m, (list, tuple)) else [m])]


def leaves_of(maps: Sequence) -> Sequence:
    """Return copies of the maps that are leaves with a gradient."""
    if isinstance(maps, (list, tuple)):
        return type(maps)(leaves_of(m) for m in maps)
    return maps.detach().clone().requires_grad_()


def steps(parts: Dict[str, Callable]) -> Tuple[Dict[str, Callable[[], None]], float]:
    """Return what is timed, and the value of the loss."""
    import torch

    maps = leaves_of(parts['forward']())
    graph = parts['forward']()
    gradient = [torch.ones_like(t) * 1e-3 for t in flat(graph)]
    parameters = [p for p in parts['model'].parameters() if p.requires_grad]

    def loss() -> None:
        for leaf in flat(maps):
            leaf.grad = None
        parts['loss'](maps).backward()

    def backward() -> None:
        torch.autograd.grad(flat(graph), parameters, gradient, retain_graph=True, allow_unused=True)

    def whole() -> None:
        for parameter in parameters:
            parameter.grad = None
        parts['loss'](parts['forward']()).backward()

    def forward() -> None:
        with torch.no_grad():
            parts['forward']()

    timed = {
        'forward': forward,
        'assignment and loss': loss,
        'backward': backward,
        'training step': whole,
        'inference': parts['infer'],
    }
    return timed, parts['loss'](maps).item()


def assignment(
    yolo: Optional[types.SimpleNamespace], batch: Tuple, size: int, device: str
) -> Callable[[], object]:
    """Return the assignment alone, of random predictions; ours where yolo is None."""
    import torch

    _, found, labels = batch
    images, boxes = len(found), len(found[0])
    points = torch.cat(
        [
            (torch.cartesian_prod(torch.arange(size // s), torch.arange(size // s)).flip(1) + 0.5)
            * s
            for s in (8, 16, 32)
        ]
    ).to(device)
    generator = torch.Generator().manual_seed(0)
    sides = (torch.rand(images, len(points), 2, generator=generator) * 60).to(device)
    predicted = torch.cat((points - sides, points + sides.flip(1)), dim=2)
    scores = torch.rand(images, len(points), CLASSES, generator=generator).to(device)
    if yolo is None:
        from mmdet_contrast.models.task_modules import BatchTaskAlignedAssigner

        owner = torch.arange(images).repeat_interleave(boxes).to(device)
        scores = scores.transpose(1, 2).contiguous()
        arguments = (scores, predicted, points, torch.cat(found), torch.cat(labels), owner)
        assign = BatchTaskAlignedAssigner().assign
    else:
        mask = torch.ones(images, boxes, 1).to(device)
        classes = torch.stack(labels)[..., None].float()
        arguments = (scores, predicted, points, classes, torch.stack(found), mask)
        assign = yolo.assigner(topk=10, num_classes=CLASSES, alpha=0.5, beta=6.0)
    return lambda: assign(*arguments)


def memory_step(
    kind: str, yolo: Optional[types.SimpleNamespace], batch: Tuple, size: int, device: str
) -> Callable[[], object]:
    """Return what a row of memory is of; ours where yolo is None."""
    import torch

    if kind == 'the assignment':
        return torch.no_grad()(assignment(yolo, batch, size, device))
    parts = (
        theirs_parts(yolo, batch, size, device) if yolo else ours_parts(batch, size, None, device)
    )
    if kind == 'a forward pass':
        parts['model'].eval()
        if yolo:
            # their head decodes unless it trains; ours returns the raw maps in either mode
            parts['model'].model[-1].training = True
        return torch.no_grad()(parts['forward'])

    def train() -> None:
        parts['loss'](parts['forward']()).backward()
        parts['model'].zero_grad(set_to_none=True)

    return train


def run_memory(
    kind: str, who: str, size: int, images: int, boxes: int, path: Optional[str], device: str
) -> None:
    """Print the peak memory of one call in this process, in bytes, as JSON."""
    yolo = load_ultralytics(path)
    batch = make_batch(size, images, boxes, device)
    common.print_peak(
        memory_step(kind, None if who == 'ours' else yolo, batch, size, device), device
    )


def main() -> None:
    """Run the benchmark."""
    parser = common.parser(__doc__, device=True)
    parser.add_argument('--ultralytics', metavar='DIR', help='folder that holds the package')
    parser.add_argument('--sizes', type=int, nargs='+', default=[320, 640])
    parser.add_argument('--images', type=int, nargs='+', default=[4], help='of a batch')
    parser.add_argument('--boxes', type=int, nargs='+', default=[10, 100], help='to an image')
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--parts', nargs='+', help='these alone, for example forward; no memory')
    parser.add_argument('--memory-of', nargs=5, help='used by the script')
    args = parser.parse_args()
    if args.memory_of:
        kind, who, *numbers = args.memory_of
        run_memory(kind, who, *[int(n) for n in numbers], args.ultralytics, args.device)
        return
    if args.quick:
        args.sizes, args.images, args.boxes, args.repeats = [64], [2], [3], 1

    sides = BOTH if args.ultralytics else BOTH[:1]
    options = ['--device', args.device]
    if args.ultralytics:
        options += ['--ultralytics', args.ultralytics]
    cases = list(itertools.product(args.sizes, args.images, args.boxes))
    rows_of_memory = [
        (case, kind)
        for case, kind in itertools.product([] if args.parts else cases, MEMORY_OF)
        if kind != 'a forward pass' or case[-1] == args.boxes[0]
    ]
    found = common.in_fresh_processes(
        {
            (case, kind, who): ['--memory-of', kind, who, *map(str, case), *options]
            for case, kind in rows_of_memory
            for who in sides
        },
        __file__,
        args.device,
    )

    with contextlib.redirect_stdout(io.StringIO()):
        yolo = load_ultralytics(args.ultralytics)
    print(common.machine(args.device))
    columns = common.call_columns(args.device)
    rows = []
    for size, images, boxes in cases:
        batch = make_batch(size, images, boxes, args.device)
        theirs = theirs_parts(yolo, batch, size, args.device) if yolo else None
        state = theirs['model'].state_dict() if theirs else None
        mine, value = steps(ours_parts(batch, size, state, args.device))
        if args.parts:
            mine = {name: step for name, step in mine.items() if name in args.parts}
        timed = {f'ours {name}': step for name, step in mine.items()}
        others = {}
        if theirs:
            others, other_value = steps(theirs)
            timed.update({f'Ultralytics {name}': others[name] for name in mine})
            if abs(value - other_value) > 1e-3 * abs(other_value):
                sys.exit(f'The loss is {value}, but that of Ultralytics {other_value}.')
        common.allow_tf32()
        taken = common.seconds(timed, repeats=args.repeats, limit=8)
        label = f'{size}, {images} x {boxes}'
        for name in mine:
            one, other = taken[f'ours {name}'], taken.get(f'Ultralytics {name}')
            shown = common.show_time(other) if other else '-'
            both = [each[name] for each in (mine, others) if name in each]
            cells = (common.show_time(one), shown, common.show_ratio(other, one))
            rows.append((label, name, *cells, *common.show_calls(both, args.device)))
        for kind in MEMORY_OF:
            case = (size, images, boxes)
            if (case, kind) not in rows_of_memory:
                continue
            one, other = (found.get((case, kind, who)) for who in BOTH)
            shown = common.show_memory(other) if other else '-'
            cells = (common.show_memory(one), shown, common.show_ratio(other, one))
            rows.append((label, f'memory of {kind}', *cells, *['-'] * len(columns)))
    header = ('size, images x boxes', 'part', 'ours', 'Ultralytics', 'ratio')
    print(common.table((*header, *columns), rows))


if __name__ == '__main__':
    main()
