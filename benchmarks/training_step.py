"""A training step with the contrastive loss against one without, and where the time goes.

Variants: plain; the views forwarded with the loss switched off (weight 0); the loss with views; the
loss with jittered boxes and no view. The settings are the small RetinaNets that the package ships,
and with --full the RetinaNet-R50 of configs/retina_contrast_coco.py at 800 x 1344.

A step leads from a batch of pictures in main memory to the optimizer's update; all variants take
turns in one process. The figures are medians. Making the view is work of the data loader and has a
column of its own. The parts of a step are measured in further steps, with waits for the GPU between
them. On a GPU the peak of what PyTorch allocates is shown, too, and the kernels that a step
launches and its waits for the GPU are counted.
"""

import sys
import time
from collections import defaultdict
from contextlib import contextmanager
from math import isfinite
from statistics import mean, median
from typing import Dict, Iterator, List, Tuple

import _common as common

PARTS = ('prepare', 'backbone, neck', 'detection', 'contrast', 'backward', 'optimizer')
# whether there are views, and what differs from the config of RegionContrast
VARIANTS = {
    'plain': (False, None),
    'view, weight 0': (True, dict(criterion=dict(type='NTXentLoss', loss_weight=0.0))),
    'contrast': (True, {}),
    'no view': (False, dict(sampler=dict(type='JitteredBoxes'))),
}
SETTINGS = (
    # name, configs, height and width, images, boxes to an image
    ('quarter width, 128 x 128', 'shapes', (128, 128), 8, 3),
    ('half width, 320 x 240', 'bccd', (240, 320), 4, 13),
)
FULL = tuple(('RetinaNet-R50, 800 x 1344', 'coco', (800, 1344), n, 20) for n in (2, 8))


class Clock:
    """Seconds by part; a part that runs inside another one does not count for that."""

    def __init__(self) -> None:
        self.parts: Dict[str, float] = defaultdict(float)
        self.runs = False
        self._inner = [0.0]

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Count what runs inside for ``part``."""
        self._inner.append(0.0)
        common.synchronize()
        start = time.perf_counter()
        yield
        common.synchronize()
        taken = time.perf_counter() - start
        self.parts[part] += taken - self._inner.pop()
        self._inner[-1] += taken

    def wrap(self, owner: object, method: str, part: str) -> None:
        """Count every call of a method for ``part`` while the clock runs."""
        function = getattr(owner, method)

        def timed(*args, **kwargs):
            if not self.runs:
                return function(*args, **kwargs)
            with self(part):
                return function(*args, **kwargs)

        setattr(owner, method, timed)


class Step:
    """One variant's steps."""

    def __init__(
        self, variant: str, config: str, size: Tuple[int, int], images: int, boxes: int, args
    ) -> None:
        from mmengine.config import Config
        from mmengine.optim import build_optim_wrapper

        from mmdet_contrast import config_path

        views, options = VARIANTS[variant]
        plain = options is None
        name = f'retina_{config}.py' if plain else f'retina_contrast_{config}.py'
        cfg = Config.fromfile(config_path(name))
        if not plain:
            cfg.model.bbox_head.contrast.update(options)
        # the pictures are noise, and there is nothing to learn from them
        cfg.optim_wrapper.optimizer.lr = 1e-6
        if args.amp:
            cfg.optim_wrapper.update(type='AmpOptimWrapper', loss_scale='dynamic')
        self.model = common.build_model(cfg, args.device)
        self.optim_wrapper = build_optim_wrapper(self.model, cfg.optim_wrapper)

        classes = cfg.model.bbox_head.num_classes
        self.batches, taken = [], []
        for i in range(args.batches):
            start = time.perf_counter()
            self.batches.append(
                common.view_batch(images, boxes, *size, classes, views, seed=100 * i)
            )
            taken.append(time.perf_counter() - start)
        self.data = mean(taken)
        self.number, self.clock = 0, Clock()
        self.clock.wrap(self.model.data_preprocessor, 'forward', 'prepare')
        self.clock.wrap(self.model, 'extract_feat', 'backbone, neck')
        self.clock.wrap(self.model.bbox_head, 'loss', 'detection')
        if not plain:
            self.clock.wrap(self.model.bbox_head.contrast, 'forward', 'contrast')
        self.clock.wrap(self.optim_wrapper, 'backward', 'backward')
        for method in ('step', 'zero_grad'):
            self.clock.wrap(self.optim_wrapper, method, 'optimizer')

    def train(self) -> None:
        """Run one step."""
        batch = self.batches[self.number % len(self.batches)]
        self.number += 1
        self.losses = self.model.train_step(batch, self.optim_wrapper)

    def __call__(self) -> float:
        """Run one step; return its seconds."""
        common.synchronize()
        start = time.perf_counter()
        self.train()
        common.synchronize()
        return time.perf_counter() - start


def measure(name: str, config: str, size: Tuple[int, int], images: int, boxes: int, args) -> None:
    """Print the table of one setting."""
    # the first one would pay for the imports
    common.view_batch(images, boxes, *size)
    runs = {v: Step(v, config, size, images, boxes, args) for v in VARIANTS}
    taken: Dict[str, List[float]] = defaultdict(list)
    parts: Dict[Tuple[str, str], List[float]] = defaultdict(list)
    for iteration in range(-args.warm_up, 2 * args.steps):
        for variant, run in runs.items():
            run.clock.parts.clear()
            run.clock.runs = iteration >= args.steps
            seconds = run()
            if run.clock.runs:
                for part in PARTS:
                    parts[variant, part].append(run.clock.parts[part])
            elif iteration >= 0:
                taken[variant].append(seconds)
    rows = []
    totals = {}
    for variant, run in runs.items():
        if not isfinite(run.losses['loss'].item()):
            sys.exit(f'{variant}: the losses are {run.losses}.')
        totals[variant] = median(taken[variant])
        cells = [f'{1e3 * totals[variant]:.1f}', f'{totals[variant] / totals["plain"]:.2f}x']
        cells += [f'{1e3 * median(parts[variant, part]):.1f}' for part in PARTS]
        run.clock.runs = False
        cells += common.show_calls([run.train], args.device)
        if args.device == 'cuda':
            with common.PeakMemory('cuda') as memory:
                run()
            cells.append(common.show_memory(memory.grown))
        rows.append((variant, *cells, f'{1e3 * (run.data - runs["plain"].data):.1f}'))
    columns = (*PARTS, *common.call_columns(args.device))
    if args.device == 'cuda':
        columns = (*columns, 'peak memory')
    print(f'\n{name}, {images} images of {boxes} boxes, {args.steps} steps')
    print(common.table(('ms', 'step', '/ plain', *columns, 'making views'), rows))


def main() -> None:
    """Run the benchmark."""
    parser = common.parser(__doc__, device=True)
    parser.add_argument('--steps', type=int, default=25)
    parser.add_argument('--warm-up', type=int, default=3, help='steps that do not count')
    parser.add_argument('--batches', type=int, default=10, help='different ones, used in turns')
    parser.add_argument('--full', action='store_true', help='the networks of full size instead')
    parser.add_argument('--amp', action='store_true', help='mixed precision (a GPU only)')
    args = parser.parse_args()
    settings = FULL if args.full else SETTINGS
    if args.quick:
        args.steps, args.warm_up, args.batches = 2, 1, 2
        settings = [('quick: 64 x 64', settings[0][1], (64, 64), 2, 3)]
    from mmengine.registry import init_default_scope

    init_default_scope('mmdet')
    common.allow_tf32()
    print(f'{common.machine(args.device)}{"; mixed precision" if args.amp else ""}')
    for setting in settings:
        measure(*setting, args)


if __name__ == '__main__':
    main()
