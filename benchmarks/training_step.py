"""A training step with second views against one without, and where the time goes.

Whole iterations on generated shapes, from reading the pictures to the optimizer's update, for the
small RetinaNets that the package ships: quarter width at 128 x 128, and half width at 320 x 240.
Variants: plain (no view); the second view forwarded with the contrastive loss switched off
(weight 0); the contrastive loss with every box on every level, or each on the level of its size;
and what is cheaper: the boxes packed on a canvas, views that pass without gradient, both, and both
regions of an object from the image itself, for all images or for those without a view where only
three in ten get one. Regions are pooled to 7 x 7 cells, or to 3 x 3 where the name says so. All
variants take turns in one process. The figures are medians; means where only some images have a
view, as the steps differ then by how many these are.
"""

import tempfile
import time
from collections import defaultdict
from contextlib import contextmanager
from statistics import mean, median
from typing import Dict, Iterator, List, Tuple

import _common as common

PARTS = ('read', 'view', 'pack', 'prepare', 'backbone, neck', 'detection', 'contrast', 'backward',
         'optimizer')  # fmt: skip
SOME, PROB = 'some views, 3 x 3', 0.3
# the ending of the name of a config, and what is changed in its RegionContrast
VARIANTS = {
    'plain': (None, {}),
    'view, weight 0': ('', dict(criterion=dict(loss_weight=0.0))),
    "contrast, assign='all'": ('', dict(assign='all')),
    'contrast, 3 x 3': ('', dict(assign='all', pool_size=3)),
    "contrast, assign='scale'": ('', dict(assign='scale')),
    'canvas': ('_canvas', dict(assign='all')),
    'no gradient': ('_nograd', dict(assign='all')),
    'canvas, no gradient': ('_canvas_nograd', dict(assign='all')),
    "canvas, no gradient, assign='scale'": ('_canvas_nograd', dict(assign='scale')),
    'no view': ('_noview', dict(assign='all')),
    'no view, 3 x 3': ('_noview', dict(assign='all', pool_size=3)),
    SOME: ('', dict(assign='all', key_source='view_or_image', box_jitter=0.1, pool_size=3)),
    "no view, assign='scale'": ('_noview', dict(assign='scale')),
}
CHEAPER = tuple(VARIANTS)[5:]
SETTINGS = (
    # name, configs, width and height, batch
    ('quarter width, 128 x 128', 'shapes', (128, 128), 8),
    ('half width, 320 x 240', 'bccd', (320, 240), 4),
)


class Clock:
    """Seconds by part; a part that runs inside another one does not count for that."""

    def __init__(self) -> None:
        self.parts: Dict[str, float] = defaultdict(float)
        self._inner = [0.0]

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Count what runs inside for ``part``."""
        self._inner.append(0.0)
        start = time.perf_counter()
        yield
        taken = time.perf_counter() - start
        self.parts[part] += taken - self._inner.pop()
        self._inner[-1] += taken

    def wrap(self, owner: object, method: str, part: str) -> None:
        """Count every call of a method for ``part``."""
        function = getattr(owner, method)

        def timed(*args, **kwargs):
            with self(part):
                return function(*args, **kwargs)

        setattr(owner, method, timed)


class Step:
    """One variant's iterations."""

    def __init__(self, variant: str, config: str, root: str, size: Tuple[int, int], batch: int):
        import torch
        from mmdet.registry import DATASETS, MODELS
        from mmengine.config import Config
        from mmengine.dataset import pseudo_collate
        from mmengine.optim import build_optim_wrapper

        ending, changes = VARIANTS[variant]
        name = f'retina_{config}' if ending is None else f'retina_contrast_{config}{ending}'
        cfg = Config.fromfile(str(common.ROOT / 'configs' / f'{name}.py'))
        if variant != 'plain':
            # what differs is to be the view alone, and only some of the configs have a queue
            cfg.model.bbox_head.contrast.queue = None
            changes = dict(dict(pool_size=7), **changes)
            cfg.merge_from_dict(dict(model=dict(bbox_head=dict(contrast=changes))))
        dataset_cfg = cfg.train_dataloader.dataset
        # the shapes at this size, whatever data the config names
        pictures = dict(img='train/')
        dataset_cfg.update(
            data_root=root, ann_file='annotations/instances_train.json', data_prefix=pictures
        )
        dataset_cfg.metainfo = None
        for transform in dataset_cfg.pipeline:
            if transform.type == 'Resize':
                transform.scale = size
            elif transform.type == 'ContrastiveView' and variant == SOME:
                transform.prob = PROB
        dataset_cfg.metainfo = dict(classes=self._classes(root))
        cfg.model.bbox_head.num_classes = len(dataset_cfg.metainfo['classes'])

        torch.manual_seed(0)
        self.dataset = DATASETS.build(dataset_cfg)
        self.model = MODELS.build(cfg.model).train()
        self.optim_wrapper = build_optim_wrapper(self.model, cfg.optim_wrapper)
        self.collate, self.batch, self.next = pseudo_collate, batch, 0
        self.boxes: List[Tuple[int, int]] = []  # that may be contrasted, and that are
        self.views: List[int] = []
        self.clock = Clock()
        for transform in self.dataset.pipeline.transforms:
            name = type(transform).__name__
            part = 'view' if name == 'ContrastiveView' else 'pack' if 'Pack' in name else 'read'
            self.clock.wrap(transform, 'transform', part)
        self.clock.wrap(self.model.data_preprocessor, 'forward', 'prepare')
        self.clock.wrap(self.model, 'extract_feat', 'backbone, neck')
        self.clock.wrap(self.model.bbox_head, 'loss', 'detection')
        if variant != 'plain':
            self.clock.wrap(self.model.bbox_head.contrast, 'forward', 'contrast')

    @staticmethod
    def _classes(root: str) -> Tuple[str, ...]:
        import json
        from pathlib import Path

        content = json.loads((Path(root) / 'annotations' / 'instances_train.json').read_text())
        return tuple(x['name'] for x in content['categories'])

    def __call__(self) -> None:
        """Run one iteration."""
        indices = [(self.next + i) % len(self.dataset) for i in range(self.batch)]
        self.next = (self.next + self.batch) % len(self.dataset)
        with self.clock('read'):
            data = self.collate([self.dataset[i] for i in indices])
        data = self.model.data_preprocessor(data, training=True)
        samples = data['data_samples']
        lost = sum(s.metainfo.get('canvas_left_out', 0) for s in samples)
        instances = [s.gt_instances for s in samples if not s.metainfo.get('view', 0)]
        # without views every box takes part
        count = sum(int(x.get('view_valid', x.labels >= 0).sum()) for x in instances)
        self.boxes.append((count, count - lost))
        self.views.append(len(samples) - len(instances))
        losses = self.model(**data, mode='loss')
        total, _ = self.model.parse_losses(losses)
        with self.clock('backward'):
            self.optim_wrapper.backward(total)
        with self.clock('optimizer'):
            self.optim_wrapper.step()
            self.optim_wrapper.zero_grad()


def measure(name: str, config: str, size: Tuple[int, int], batch: int, steps: int) -> None:
    """Print the table of one setting."""
    from mmdet_contrast.datasets.shapes import make_shapes

    with tempfile.TemporaryDirectory() as root:
        make_shapes(root, num_images=dict(train=4 * batch), image_size=size, shots=())
        runs = {variant: Step(variant, config, root, size, batch) for variant in VARIANTS}
        taken: Dict[str, List[float]] = {variant: [] for variant in VARIANTS}
        parts: Dict[str, Dict[str, List[float]]] = {v: defaultdict(list) for v in VARIANTS}
        for iteration in range(steps + 1):
            for variant, run in runs.items():
                run.clock.parts.clear()
                start = time.perf_counter()
                run()
                if iteration == 0:
                    continue
                taken[variant].append(time.perf_counter() - start)
                for part in PARTS:
                    parts[variant][part].append(run.clock.parts.get(part, 0.0))
    typical = {variant: mean if variant == SOME else median for variant in VARIANTS}
    totals = {variant: typical[variant](values) for variant, values in taken.items()}
    print(f'\n{name}, batch {batch}, {steps} steps')
    rows = []
    for variant in VARIANTS:
        cells = [f'{1e3 * typical[variant](parts[variant][part]):.1f}' for part in PARTS]
        ratio = totals[variant] / totals['plain']
        rows.append((variant, f'{1e3 * totals[variant]:.1f}', f'{ratio:.2f}x', *cells))
    print(common.table(('variant, ms', 'step', '/ plain', *PARTS), rows))

    both, chosen = totals['view, weight 0'], totals["contrast, assign='all'"]
    extra = chosen - totals['plain']
    print(
        f'Of the {1e3 * extra:.0f} ms that the contrastive step costs more than the plain one, '
        f'{1e3 * (both - totals["plain"]):.0f} ms go to the second view itself (making it, and '
        f'backbone and neck once more, forward and backward), {1e3 * (chosen - both):.0f} ms to '
        'the contrastive loss.'
    )
    share = sum(runs[SOME].views[1:]) / (batch * steps)
    print(
        f'{SOME}: {share:.0%} of the images had one in these steps, of {PROB:.0%} in the long run.'
    )
    for variant in CHEAPER:
        wanted, taken_in = (sum(column) for column in zip(*runs[variant].boxes))
        saved = (chosen - totals[variant]) / extra if extra > 0 else 0.0
        print(
            f'{variant}: {totals[variant] / totals["plain"]:.2f} times the plain step; saves '
            f'{saved:.0%} of what the whole view costs; contrasts {taken_in} of {wanted} boxes.'
        )


def main() -> None:
    """Run the benchmark."""
    parser = common.parser(__doc__)
    parser.add_argument('--steps', type=int, default=25)
    args = parser.parse_args()
    from mmengine.registry import init_default_scope

    init_default_scope('mmdet')
    print(common.machine())
    for name, config, size, batch in SETTINGS[:1] if args.quick else SETTINGS:
        if args.quick:
            name, size, batch = f'{name} (quick: 64 x 64)', (64, 64), 2
        measure(name, config, size, batch, 2 if args.quick else args.steps)


if __name__ == '__main__':
    main()
