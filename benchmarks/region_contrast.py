"""RegionContrast against per-box loops, its number of operators, and its share of a step.

Three tables:

1. The branch, forward and backward down to the feature maps of five levels, against two loops on
   the same input. The first pools box by box with RoIAlign, projects, and takes the NT-Xent term of
   each anchor from a broadcast cosine similarity, in a loop; its value must be ours. The second is
   the algorithm that the package began with: every box is cropped out of its image's feature map,
   the crop resized to 7 x 7 cells and flattened, without a projector, so that its value is another
   one. The broadcasts are made, and differentiated, in the largest pieces of rows that fit
   --memory, which adds no work, as the term of an anchor needs its own row alone.
2. The operators of one forward and backward pass with the queue of the shipped configs. On a GPU:
   kernel launches, copies, and waits for the GPU. On a CPU: the operators that would launch a
   kernel there, RoIAlign's two for each level among them, and those for which a GPU would have to
   be waited for.
3. The branch's share of a training step of configs/retina_contrast_coco.py (RetinaNet-R50, without
   pre-trained weights).
"""

import sys
from typing import Callable, Dict, List, Sequence, Tuple

import _common as common

STRIDES = (8, 16, 32, 64, 128)
POOL, CROP = 3, 7
TEMPERATURE = 0.5


def make_scene(images: int, boxes: int, size: Sequence[int], channels: int, device: str) -> Tuple:
    """Return feature maps of images and their views, laid out as in training, and the samples."""
    import torch
    import torch.nn.functional as F

    from mmdet_contrast.models.data_preprocessors import ContrastiveDataPreprocessor

    preprocessor = ContrastiveDataPreprocessor([128.0] * 3, [64.0] * 3, pad_size_divisor=32)
    batch = preprocessor.to(device)(common.view_batch(images, boxes, *size), training=True)
    mix = torch.randn(channels, 3, generator=torch.Generator().manual_seed(0)).to(device)
    feats = []
    for stride in STRIDES:
        cells = [-(-side // stride) for side in batch['inputs'].shape[2:]]
        pixels = F.adaptive_avg_pool2d(batch['inputs'], cells)
        feats.append(torch.einsum('ci,bihw->bchw', mix, pixels).contiguous().requires_grad_())
    return feats, batch['data_samples']


def make_branch(channels: int, device: str, strides: Sequence[int] = STRIDES, **options):
    """Build RegionContrast."""
    import torch

    from mmdet_contrast.models.contrast import RegionContrast

    torch.manual_seed(0)
    return RegionContrast(in_channels=channels, strides=strides, **options).to(device)


def branch_step(contrast, feats: Sequence, samples: Sequence) -> Callable[[], object]:
    """Return forward and backward of RegionContrast."""

    def step():
        for tensor in (*feats, *contrast.parameters()):
            tensor.grad = None
        losses = contrast(feats, samples)
        total = sum(value for name, value in losses.items() if 'loss' in name)
        total.backward()
        return total.detach()

    return step


def crop_boxes(feat, rois: Sequence, stride: int):
    """Crop every box's cells out of the feature map and resize them to CROP x CROP."""
    import torch
    import torch.nn.functional as F

    pooled = []
    height, width = feat.shape[2:]
    # by image first: else the gradient of every crop would be as large as the whole batch's map
    maps = feat.split(1)
    for image, (x1, y1, x2, y2) in rois:
        left, top = min(int(x1 / stride), width - 1), min(int(y1 / stride), height - 1)
        right, bottom = max(left + 1, round(x2 / stride)), max(top + 1, round(y2 / stride))
        crop = maps[image][:, :, top:bottom, left:right]
        pooled.append(F.adaptive_avg_pool2d(crop, CROP).flatten(1))
    return torch.cat(pooled)


def align_boxes(feat, rois: Sequence, stride: int):
    """Pool box by box with mmcv's RoIAlign."""
    import torch
    from mmcv.ops import roi_align

    pooled = []
    maps = feat.split(1)
    for image, box in rois:
        roi = feat.new_tensor([[0.0, *box]])
        one = roi_align(maps[image], roi, POOL, 1 / stride, 2, 'avg', True)
        pooled.append(one.flatten(1))
    return torch.cat(pooled)


def broadcast_nt_xent(embeddings, memory: float) -> Tuple[float, object]:
    """Return NT-Xent and its gradient by broadcast cosine similarity and a loop over anchors."""
    import torch

    x = embeddings.detach().requires_grad_()
    count = len(x)
    # cosine_similarity and its gradient hold about eight tensors of the broadcast shape
    rows = max(1, int(memory * common.GIB / (8 * 4 * x[0].numel() * count)))
    total = 0.0
    for start in range(0, count, rows):
        stop = min(count, start + rows)
        logits = torch.cosine_similarity(x[start:stop, None], x[None], dim=-1) / TEMPERATURE
        terms = []
        for i in range(start, stop):
            partner = (i + count // 2) % count
            others = torch.cat((logits[i - start, :i], logits[i - start, i + 1 :]))
            terms.append(others.exp().sum().log() - logits[i - start, partner])
        loss = torch.stack(terms).sum() / count
        loss.backward()
        total += loss.item()
    return total, x.grad


def loop_step(feats, samples, pool: Callable, project: Callable, memory: float) -> Callable:
    """Return forward and backward of a loop."""
    # of the images, then of their views, in the same order
    rois = [(i, box) for i, s in enumerate(samples) for box in s.gt_instances.bboxes.tolist()]

    def step() -> float:
        for feat in feats:
            feat.grad = None
        total = 0.0
        for feat, stride in zip(feats, STRIDES):
            embeddings = project(pool(feat, rois, stride))
            value, gradient = broadcast_nt_xent(embeddings, memory)
            embeddings.backward(gradient / len(STRIDES))
            total += value / len(STRIDES)
        return total

    return step


def compare(feats, samples, args) -> List[Tuple[str, ...]]:
    """Time branch and loops on one batch; return rows of a table."""
    # all other embeddings as negatives, as the loops have them
    criterion = dict(type='NTXentLoss', temperature=TEMPERATURE, negatives='all')
    contrast = make_branch(
        args.channels,
        args.device,
        sampler=dict(type='ViewBoxes', pool_size=POOL),
        criterion=criterion,
    )
    ours = branch_step(contrast, feats, samples)
    steps: Dict[str, Callable[[], float]] = {
        'RegionContrast': lambda: ours().item(),
        'loop: RoIAlign, MLP': loop_step(
            feats, samples, align_boxes, contrast.projector, args.memory
        ),
        'loop: crops, flattened': loop_step(feats, samples, crop_boxes, lambda x: x, args.memory),
    }
    values = {name: steps[name]() for name in ('RegionContrast', 'loop: RoIAlign, MLP')}
    one, other = values.values()
    if abs(one - other) > 1e-5 * max(1, abs(other)):
        sys.exit(f'RegionContrast has the value {one:.7f}, but the loop over boxes {other:.7f}.')
    # the loops take up to minutes
    taken = common.seconds(steps, repeats=1 if args.quick else 5, warm_up=0, limit=10)
    rows = []
    for name, value in taken.items():
        ratio = common.show_ratio(value, taken['RegionContrast']) if 'loop' in name else ''
        shown = f'{values[name]:.6f}' if name in values else ''
        rows.append((name, common.show_time(value), ratio, shown))
    return rows


def count(feats, samples, images: int, args) -> List[Tuple[str, ...]]:
    """Count the operators of the branch; return rows of a table."""
    rows = []
    for sampler in ('ViewBoxes', 'JitteredBoxes'):
        for levels in (1, len(STRIDES)):
            contrast = make_branch(
                args.channels,
                args.device,
                STRIDES[:levels],
                num_classes=80,
                sampler=dict(type=sampler),
                queue=dict(type='FeatureQueue'),
            )
            step = branch_step(contrast, feats[:levels], samples)
            kernels, copies, waits = common.count_calls(step, args.device)
            if args.device == 'cpu':
                # mmcv's own, which are no operators of PyTorch's
                kernels += 2 * levels
            calls = map(str, (kernels, copies, waits))
            rows.append((sampler, str(images), str(levels), *calls))
    return rows


def share(args) -> List[Tuple[str, ...]]:
    """Time a whole step and the branch on the same feature maps; return rows of a table."""
    import torch
    from mmengine.config import Config
    from mmengine.optim import build_optim_wrapper

    cfg = Config.fromfile(str(common.ROOT / 'configs' / 'retina_contrast_coco.py'))
    model = common.build_model(cfg, args.device)
    optim_wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    images = min(args.images)
    data = common.view_batch(images, args.boxes, *args.size)
    with torch.no_grad():
        batch = model.data_preprocessor(data, training=True)
        feats = model.extract_feat(batch['inputs'])
    feats = [feat.clone().requires_grad_() for feat in feats]
    steps = {
        'whole step': lambda: model.train_step(data, optim_wrapper),
        'RegionContrast': branch_step(model.bbox_head.contrast, feats, batch['data_samples']),
    }
    repeats = 1 if args.quick else 3 if args.device == 'cpu' else 15
    taken = common.seconds(steps, repeats=repeats)
    whole = taken['whole step']
    return [(name, common.show_time(x), f'{x / whole:.2%}') for name, x in taken.items()]


def main() -> None:
    """Run the benchmark."""
    parser = common.parser(__doc__, device=True)
    parser.add_argument('--images', type=int, nargs='+', default=[2, 8])
    parser.add_argument('--boxes', type=int, default=20, help='to an image')
    parser.add_argument('--size', type=int, nargs=2, default=(800, 1344), metavar=('H', 'W'))
    parser.add_argument('--channels', type=int, default=256)
    parser.add_argument('--memory', type=float, default=4, metavar='GIB', help='for the loops')
    parser.add_argument('--tables', nargs='+', default=['loops', 'operators', 'share'])
    args = parser.parse_args()
    if args.quick:
        args.boxes, args.size, args.channels = 3, (128, 160), 8
    from mmengine.registry import init_default_scope

    init_default_scope('mmdet')
    print(common.machine(args.device))
    print(
        f'{args.size[0]} x {args.size[1]} images of {args.boxes} boxes, and their views; '
        f'{args.channels} channels; forward and backward'
    )
    times, calls = [], []
    for images in args.images:
        feats, samples = make_scene(images, args.boxes, args.size, args.channels, args.device)
        if 'loops' in args.tables:
            times += [(str(images), *row) for row in compare(feats, samples, args)]
        if 'operators' in args.tables:
            calls += count(feats, samples, images, args)
        del feats
    if times:
        print('\n' + common.table(('images', 'branch', 'time', 'time / ours', 'value'), times))
    if calls:
        header = ('sampler', 'images', 'levels', 'kernels', 'copies', 'waits')
        print('\n' + common.table(header, calls))
    if 'share' in args.tables:
        print(f'\nRetinaNet-R50, {min(args.images)} image(s)')
        print(common.table(('part', 'time', 'share'), share(args)))


if __name__ == '__main__':
    main()
