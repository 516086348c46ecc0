"""Memory of a process and its workers with ShardDataset against CocoDataset.

Tiny pictures, 7 boxes each, as COCO has. A fresh process builds the data set and its loader with
two workers, and draws some batches. *Held* is then its memory and that of its workers, shared pages
counted once, beyond what it had before; *peak* is the growth of the process alone while it built
the data set. Both data sets must give the same boxes for the same pictures.
"""

import json
import multiprocessing
import os
import sys
import tempfile
from pathlib import Path

import _common as common

WORKERS = 2
BATCHES = 10
BOXES = 7


def make_data(root: Path, number: int) -> None:
    """Write COCO annotations with their pictures, and the same as shards."""
    import cv2
    import numpy as np

    from mmdet_contrast.converters import coco_to_shards

    rng = np.random.default_rng(0)
    side = 16
    picture = cv2.imencode('.jpg', rng.integers(0, 256, (side, side, 3), np.uint8))[1].tobytes()
    names = [f'{i // 1000:03d}/{i:09d}.jpg' for i in range(number)]
    for i in range(0, number, 1000):
        (root / 'images' / f'{i // 1000:03d}').mkdir(parents=True)
    for name in names:
        (root / 'images' / name).write_bytes(picture)
    corners = rng.integers(0, side // 2, (number, BOXES, 4)).tolist()
    labels = rng.integers(1, 81, (number, BOXES)).tolist()
    coco = dict(
        categories=[dict(id=1 + i, name=f'class {i}') for i in range(80)],
        images=[
            dict(id=1 + i, file_name=name, width=side, height=side) for i, name in enumerate(names)
        ],
        annotations=[
            dict(
                id=1 + i * BOXES + k,
                image_id=1 + i,
                category_id=labels[i][k],
                bbox=[x, y, w + 1, h + 1],
                area=(w + 1) * (h + 1),
                iscrowd=0,
            )
            for i in range(number)
            for k, (x, y, w, h) in enumerate(corners[i])
        ],
    )
    (root / 'ann.json').write_text(json.dumps(coco))
    coco_to_shards(root / 'ann.json', root / 'images', root / 'shards')


def proportional(pids) -> int:
    """Sum the memory of processes in bytes; what they share counts once."""
    total = 0
    for pid in pids:
        lines = Path(f'/proc/{pid}/smaps_rollup').read_text().splitlines()
        total += next(int(x.split()[1]) * 1024 for x in lines if x.startswith('Pss:'))
    return total


def measure(kind: str, root: str) -> dict:
    """Build one of the data sets, draw batches, and return what that took."""
    from mmengine.registry import init_default_scope
    from mmengine.runner import Runner

    import mmdet_contrast  # noqa: F401

    init_default_scope('mmdet')
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations', with_bbox=True),
        dict(type='PackDetInputs', meta_keys=('img_id',)),
    ]
    if kind == 'ShardDataset':
        dataset = dict(type=kind, data_root=f'{root}/shards')
    else:
        classes = tuple(f'class {i}' for i in range(80))
        dataset = dict(
            type=kind,
            ann_file=f'{root}/ann.json',
            data_prefix=dict(img=f'{root}/images'),
            metainfo=dict(classes=classes),
        )
    sampler = 'ShardSampler' if kind == 'ShardDataset' else 'DefaultSampler'
    common.release_memory()
    before = proportional([os.getpid()])
    with common.PeakMemory() as peak:
        loader = Runner.build_dataloader(
            dict(
                batch_size=16,
                num_workers=WORKERS,
                sampler=dict(type=sampler, shuffle=True),
                dataset=dict(dataset, pipeline=pipeline),
            ),
            seed=0,
        )
    common.release_memory()
    batches = iter(loader)
    for _ in range(min(BATCHES, len(loader))):
        next(batches)
    pids = [os.getpid(), *(child.pid for child in multiprocessing.active_children())]
    held = proportional(pids) - before
    # of all pictures, in any order
    boxes = sum(
        info['img_id'] * (1 + box['bbox_label']) * sum(box['bbox'])
        for info in map(loader.dataset.get_data_info, range(len(loader.dataset)))
        for box in info['instances']
    )
    return dict(held=held, peak=peak.grown, boxes=boxes)


def main() -> None:
    """Run the benchmark."""
    parser = common.parser(__doc__)
    parser.add_argument('--numbers', type=int, nargs='+', default=[1000, 10000, 100000])
    parser.add_argument('--measure', nargs=2, metavar=('KIND', 'ROOT'), help='used by the script')
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(*args.measure)))
        return
    rows = []
    for number in [50, 100] if args.quick else args.numbers:
        with tempfile.TemporaryDirectory() as folder:
            make_data(Path(folder), number)
            kinds = ('ShardDataset', 'CocoDataset')
            found = common.in_fresh_processes(
                {kind: ['--measure', kind, folder] for kind in kinds}, __file__
            )
            ours, theirs = (found[kind] for kind in kinds)
        if ours['boxes'] != theirs['boxes']:
            sys.exit('The two data sets do not give the same boxes.')
        row = [f'{number:,}']
        for key in ('held', 'peak'):
            row += [common.show_memory(ours[key]), common.show_memory(theirs[key])]
        row.insert(3, common.show_ratio(theirs['held'], ours['held']))
        rows.append(row)
    print(common.machine())
    header = ('pictures', 'held: ShardDataset', 'CocoDataset', 'theirs / ours')
    print(common.table((*header, 'peak: ShardDataset', 'CocoDataset'), rows))


if __name__ == '__main__':
    main()
