"""Add classes to a detector, from pictures that annotate the new classes."""

import argparse
from typing import Any

from mmengine.dist import is_main_process

from mmdet_contrast.apis import add_classes
from mmdet_contrast.apis.launch import run_launch


def run(**arguments: Any) -> None:
    """Add the classes, and print what was kept and learnt."""
    result = add_classes(**arguments)
    if is_main_process():
        print(f'\n{result.to_markdown()}\n\nThe detector: {result.config} {result.checkpoint}')


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description='Add classes to a detector')
    parser.add_argument('config', help='config of the detector that is there')
    parser.add_argument('checkpoint', help='its weights, file or URL')
    parser.add_argument(
        '--ann', required=True, help='COCO file of pictures that annotate the new classes'
    )
    parser.add_argument('--img-dir', required=True, help='folder of its pictures')
    parser.add_argument('--classes', nargs='+', required=True, help='names of the new classes')
    parser.add_argument('--val', help='COCO file to evaluate on, which annotates all classes')
    parser.add_argument('--val-img-dir', help='folder of its pictures, if not --img-dir')
    parser.add_argument(
        '--annotated-classes',
        nargs='+',
        default=(),
        help='old classes all of whose objects --ann annotates, too',
    )
    parser.add_argument('--replay', help='COCO file of a few old pictures, annotated or not')
    parser.add_argument('--replay-img-dir', help='folder of its pictures, if not --img-dir')
    parser.add_argument(
        '--work-dir',
        help='folder for everything that is written, by default a new one in work_dirs',
    )
    run_launch(parser, run)


if __name__ == '__main__':
    main()
