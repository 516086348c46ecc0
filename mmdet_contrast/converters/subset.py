"""A part of a COCO annotation file: some classes, some pictures."""

import json
from typing import Any, Dict, Optional, Sequence

import numpy as np

from mmdet_contrast.datasets.coco_file import read_coco_file, write_coco_file
from mmdet_contrast.utils.config import LaunchError
from mmdet_contrast.utils.files import PathLike


def subset_coco(
    ann_file: PathLike,
    out: PathLike,
    classes: Optional[Sequence[str]] = None,
    num_images: Optional[int] = None,
    seed: int = 0,
    without: Optional[PathLike] = None,
) -> Dict[str, int]:
    """Write the annotations of some classes, on the pictures that show them or on some of these.

    The categories stay as they are, so that labels mean the same. Objects of other classes are
    not annotated any more, though the pictures show them: what a split has to which new classes are
    added.

    Args:
        ann_file (str | PathLike): COCO annotations.
        out (str | PathLike): File to write.
        classes (Sequence[str], optional): Names of the classes to keep. Defaults to all.
        num_images (int, optional): Number of pictures, drawn at random. Defaults to all that have
            an annotation that is kept.
        seed (int): Of the draw.
        without (str | PathLike, optional): COCO file whose pictures are left out, by file name.

    Returns:
        dict[str, int]: Number of 'images' and of 'annotations'.

    Raises:
        LaunchError: If a class is unknown, there are fewer pictures, none shows a class, or the
            file does not hold COCO annotations.
    """
    names = {name: key for key, name in read_coco_file(ann_file).categories.items()}
    unknown = [name for name in classes or () if name not in names]
    if unknown:
        raise LaunchError(f'{ann_file} has no class {unknown[0]!r}, only {", ".join(names)}.')
    kept = set(names.values()) if classes is None else {names[name] for name in classes}
    with open(ann_file, encoding='utf-8') as file:
        coco: Dict[str, Any] = json.load(file)
    annotations = [a for a in coco.get('annotations', []) if a['category_id'] in kept]
    shown = {a['image_id'] for a in annotations}
    images = [image for image in coco['images'] if image['id'] in shown]
    if without is not None:
        left_out = set(read_coco_file(without).images.values())
        images = [image for image in images if image['file_name'] not in left_out]
    least = 1 if num_images is None else num_images
    if not 0 < least <= len(images):
        raise LaunchError(
            f'{least} pictures were asked for, and {len(images)} in {ann_file} show one of the '
            f'classes {list(classes or names)}: nothing is written.'
        )
    if num_images is not None:
        chosen = np.random.default_rng(seed).permutation(len(images))[:num_images]
        images = [images[i] for i in sorted(chosen)]
    shown = {image['id'] for image in images}
    annotations = [a for a in annotations if a['image_id'] in shown]
    for image in images:
        if image.get('annotated_category_ids') is not None:
            image['annotated_category_ids'] = [
                key for key in image['annotated_category_ids'] if key in kept
            ]
    write_coco_file(out, {**coco, 'images': images, 'annotations': annotations})
    return {'images': len(images), 'annotations': len(annotations)}
