"""RegionContrast against the algorithm of per-box crops and broadcast cosine similarity.

Pool, project and NT-Xent, forward and backward down to the feature maps of five levels. The
reference ("loop") crops each box out of its image's feature map in a Python loop, resizes the crop
adaptively, flattens, computes ``cosine_similarity(x[:, None], x[None])`` and takes the term of
each anchor in a loop. The broadcast of 8 x 20 boxes with their views would need 40 GiB; it is
made, and differentiated, in the largest pieces of rows that fit --memory, which adds no work,
since the term of an anchor needs its own row alone. "small pieces" stay in the processor's cache:
better than what the algorithm would do by itself, and measured on the first batch.

Crops of whole cells are another pooling than RoIAlign, so their value is another one. "loop,
RoIAlign" pools box by box with mmcv's operator and must give our value.
"""

import sys
from typing import Callable, Dict, List, Sequence, Tuple

import _common as common

STRIDES = (8, 16, 32, 64, 128)
POOL = 7
TEMPERATURE = 0.5
SMALL_PIECES = 0.05  # GiB


def make_scene(images: int, boxes: int, height: int, width: int, channels: int) -> Tuple:
    """Return feature maps of originals and views, and their data samples."""
    import torch
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    generator = torch.Generator().manual_seed(0)
    feats = []
    for stride in STRIDES:
        shape = (images, channels, -(-height // stride), -(-width // stride))
        first = torch.randn(shape, generator=generator)
        # a view resembles its original
        second = 0.7 * first + 0.7 * torch.randn(shape, generator=generator)
        feats.append(torch.cat((first, second)).requires_grad_())
    samples = []
    for position in range(2 * images):
        image = position % images
        instances = InstanceData(
            bboxes=torch.from_numpy(common.random_boxes(boxes, height, width, seed=image)),
            labels=torch.arange(boxes) % 80,
        )
        view = position // images
        metainfo = dict(view=view, img_shape=(height, width))
        if view:
            metainfo['view_of'] = image
        samples.append(DetDataSample(gt_instances=instances, metainfo=metainfo))
    return feats, samples


def make_rois(samples: Sequence) -> List[Tuple[int, List[float]]]:
    """Return (position in the batch, box) of originals, then of views."""
    return [(i, box) for i, s in enumerate(samples) for box in s.gt_instances.bboxes.tolist()]


def crop_boxes(feat, rois: Sequence, stride: int):
    """Crop every box's cells out of the feature map and resize them to POOL x POOL."""
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
        pooled.append(F.adaptive_avg_pool2d(crop, POOL).flatten(1))
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


def loop_step(feats, samples, pool: Callable, projector, memory: float) -> Callable[[], float]:
    """Return forward and backward of the reference."""
    rois = make_rois(samples)

    def step() -> float:
        for feat in feats:
            feat.grad = None
        total = 0.0
        for feat, stride in zip(feats, STRIDES):
            embeddings = pool(feat, rois, stride)
            if projector is not None:
                embeddings = projector(embeddings)
            value, gradient = broadcast_nt_xent(embeddings, memory)
            embeddings.backward(gradient / len(STRIDES))
            total += value / len(STRIDES)
        return total

    return step


def branch_step(contrast, feats, samples) -> Callable[[], float]:
    """Return forward and backward of RegionContrast."""

    def step() -> float:
        for feat in feats:
            feat.grad = None
        loss = sum(contrast(feats, samples).values())
        loss.backward()
        return loss.item()

    return step


def make_branch(channels: int, project: bool, with_mmcv: bool = False):
    """Build RegionContrast with all other embeddings as negatives, as the reference has them."""
    import torch
    from mmcv.ops import roi_align

    from mmdet_contrast.models.contrast import RegionContrast

    class WithRoIAlign(RegionContrast):
        def _pool(self, feat, rois, stride):
            size, ratio = self.pool_size, self.sampling_ratio
            return roi_align(feat, rois, size, 1 / stride, ratio, 'avg', True).flatten(1)

    torch.manual_seed(0)
    contrast = (WithRoIAlign if with_mmcv else RegionContrast)(
        in_channels=channels,
        strides=STRIDES,
        pool_size=POOL,
        projector=dict(type='MLPProjector') if project else None,
        criterion=dict(type='NTXentLoss', temperature=TEMPERATURE, negatives='all'),
    )
    return contrast


def compare(
    images: int,
    boxes: int,
    height: int,
    width: int,
    channels: int,
    repeats: int,
    memory: float,
    first: bool,
) -> List[Tuple[str, ...]]:
    """Time all variants on one batch; return the rows of the table."""
    feats, samples = make_scene(images, boxes, height, width, channels)
    flat, mlp = make_branch(channels, False), make_branch(channels, True)
    projector = mlp.projectors[0]
    steps: Dict[str, Callable[[], float]] = {
        'ours, flattened features': branch_step(flat, feats, samples),
        'ours, flattened, mmcv RoIAlign': branch_step(
            make_branch(channels, False, True), feats, samples
        ),
        'ours, MLP projector': branch_step(mlp, feats, samples),
        'ours, MLP, mmcv RoIAlign': branch_step(make_branch(channels, True, True), feats, samples),
        'loop, MLP projector': loop_step(feats, samples, crop_boxes, projector, memory),
        'loop, RoIAlign, MLP projector': loop_step(feats, samples, align_boxes, projector, memory),
    }
    slow = {'loop, flattened features': loop_step(feats, samples, crop_boxes, None, memory)}
    if first:
        small = SMALL_PIECES
        slow['loop, flattened, small pieces'] = loop_step(feats, samples, crop_boxes, None, small)
        slow['loop, RoIAlign, flattened'] = loop_step(feats, samples, align_boxes, None, small)
    values = {name: step() for name, step in steps.items()}
    taken = common.seconds(steps, repeats=repeats, warm_up=0)
    for name, step in slow.items():
        # up to minutes long: one call is both value and time
        kept: List[float] = []
        taken.update(
            common.seconds({name: lambda s=step, k=kept: k.append(s())}, repeats=1, warm_up=0)
        )
        values[name] = kept[0]
    for ours, theirs in (
        ('ours, flattened features', 'loop, RoIAlign, flattened'),
        ('ours, flattened features', 'ours, flattened, mmcv RoIAlign'),
        ('ours, MLP projector', 'loop, RoIAlign, MLP projector'),
        ('ours, MLP projector', 'ours, MLP, mmcv RoIAlign'),
    ):
        if theirs in values and abs(values[ours] - values[theirs]) > 1e-5 * max(
            1, abs(values[theirs])
        ):
            sys.exit(f'{ours}: {values[ours]:.7f}, but {theirs}: {values[theirs]:.7f}')
    rows = []
    for name in (*slow, *steps):
        ours = taken['ours, MLP projector' if 'MLP' in name else 'ours, flattened features']
        ratio = '' if taken[name] == ours else common.show_ratio(taken[name], ours)
        batch = f'{images} x {boxes}'
        rows.append((batch, name, common.show_time(taken[name]), ratio, f'{values[name]:.6f}'))
    return rows


def main() -> None:
    """Run the benchmark."""
    parser = common.parser(__doc__)
    parser.add_argument('--images', type=int, nargs='+', default=[2, 8])
    parser.add_argument('--boxes', type=int, default=20, help='to an image')
    parser.add_argument('--size', type=int, nargs=2, default=(800, 1344), metavar=('H', 'W'))
    parser.add_argument('--channels', type=int, default=256)
    parser.add_argument('--memory', type=float, default=4, metavar='GIB', help='for the reference')
    args = parser.parse_args()
    if args.quick:
        args.images, args.boxes, args.size, args.channels = [2], 3, (128, 160), 8
    rows = []
    for images in args.images:
        repeats = 1 if args.quick else 5
        # the slow variants once, on the first and smaller batch
        first = images == args.images[0]
        rows += compare(images, args.boxes, *args.size, args.channels, repeats, args.memory, first)
    print(common.machine())
    print(
        f'{len(STRIDES)} levels x {args.channels} channels of {args.size[0]} x {args.size[1]} '
        'images, each with its view; forward and backward'
    )
    print(common.table(('images x boxes', 'branch', 'time', 'time / ours', 'value'), rows))


if __name__ == '__main__':
    main()
