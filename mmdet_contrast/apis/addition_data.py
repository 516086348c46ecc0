"""Annotation files of an addition of classes: several COCO files become one."""

import os
import os.path as osp
from collections import Counter
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Set, Tuple

from mmengine.fileio import load

from mmdet_contrast.datasets.coco_file import read_coco_file
from mmdet_contrast.utils.files import PathLike


class AnnotatedPictures(NamedTuple):
    """A COCO file, and what is taken from it.

    Attributes:
        ann (str): The file.
        img_dir (str): Folder of its pictures.
        takes (Sequence[str]): Classes whose boxes are taken from all pictures.
        covers (Sequence[str], optional): Classes all of whose objects are annotated in a picture,
            unless its entry ``annotated_category_ids`` says otherwise. None leaves it unsaid.
        may_cover (Sequence[str]): Classes that such an entry may name; others are left out.
        empty (bool): Whether pictures are kept that cover classes and have no box. Those that cover
            none are kept in any case.
    """

    ann: str
    img_dir: str
    takes: Sequence[str]
    covers: Optional[Sequence[str]] = None
    may_cover: Sequence[str] = ()
    empty: bool = True


class MergedFile(NamedTuple):
    """What several files became.

    Attributes:
        content (dict): A COCO file with absolute ``file_name``. Each picture of a file with
            ``covers`` has an entry ``annotated_category_ids``.
        left_out (dict[str, int]): Number of boxes of known classes, by class, that were not taken
            from pictures of which no file says that they annotate the class.
        uniform (bool): Whether all pictures annotate the same classes.
    """

    content: Dict[str, Any]
    left_out: Dict[str, int]
    uniform: bool


def merge_files(parts: Sequence[AnnotatedPictures], classes: Sequence[str]) -> MergedFile:
    """Make one COCO file of several, whose categories are given classes in their order.

    Where files with ``covers`` name a picture more than once, it annotates what any of its entries
    does, and the boxes of a class that several annotate are those of the first one.

    Args:
        parts (Sequence[AnnotatedPictures]): The files.
        classes (Sequence[str]): Names of the categories, with ids from 0.

    Returns:
        MergedFile: The content, and what is in it.

    Raises:
        LaunchError: If a file is damaged.
    """
    ids = {name: number for number, name in enumerate(classes)}
    images: List[Dict[str, Any]] = []
    annotations: List[Dict[str, Any]] = []
    # of each picture the classes that it annotates, with the entry that does so first
    covered: List[Dict[str, Tuple[int, Any]]] = []
    left_out: List[Tuple[str, int]] = []
    places: Dict[str, int] = {}
    kept: Set[int] = set()
    for number, part in enumerate(parts):
        names = read_coco_file(part.ann).categories
        content = load(part.ann)
        own: Dict[Any, int] = {}
        for image in content['images']:
            path = osp.abspath(osp.join(part.img_dir, image['file_name']))
            if path not in places or part.covers is None:
                places[path] = len(images)
                images.append(dict(image, id=len(images), file_name=path))
                images[-1].pop('annotated_category_ids', None)
                covered.append({})
            own[image['id']] = place = places[path]
            for name in _coverage(image, names, part):
                covered[place].setdefault(name, (number, image['id']))
            if part.empty:
                kept.add(place)
        for annotation in content.get('annotations', ()):
            name, place = names[annotation['category_id']], own[annotation['image_id']]
            entry = number, annotation['image_id']
            if name not in ids or covered[place].get(name, entry) != entry:
                continue
            if name not in part.takes and name not in covered[place]:
                left_out.append((name, place))
                continue
            _, _, width, height = annotation['bbox']
            box = dict(dict(area=max(width, 0) * max(height, 0), iscrowd=0), **annotation)
            box.update(id=len(annotations) + 1, image_id=place, category_id=ids[name])
            annotations.append(box)
            kept.add(place)
    if any(part.covers is not None for part in parts):
        for image, names_of in zip(images, covered):
            image['annotated_category_ids'] = sorted(ids[name] for name in names_of)
    categories = [dict(id=number, name=name) for name, number in ids.items()]
    used = [place for place, names_of in enumerate(covered) if place in kept or not names_of]
    merged = dict(
        images=[images[place] for place in used], annotations=annotations, categories=categories
    )
    uniform = len({frozenset(covered[place]) for place in used}) == 1
    # not those that a later file has
    counts = Counter(name for name, place in left_out if name not in covered[place])
    return MergedFile(merged, dict(counts), uniform)


def names_in(ann: PathLike) -> Dict[str, int]:
    """Count the boxes in a COCO file that a detector can learn from.

    Args:
        ann (str | PathLike): The file.

    Returns:
        dict[str, int]: Number of them by name of the category.

    Raises:
        LaunchError: If the file is damaged.
    """
    file = read_coco_file(os.fspath(ann))
    return {name: file.usable[key] for key, name in file.categories.items()}


def _coverage(image: Dict[str, Any], names: Dict[int, str], part: AnnotatedPictures) -> Set[str]:
    """Return the classes that a picture annotates."""
    given = image.get('annotated_category_ids')
    if given is None or part.covers is None:
        return set(part.covers or ())
    return {names[key] for key in given} & set(part.may_cover)
