"""Small annotation folders, written by hand."""

from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

import numpy as np
import pytest
from PIL import Image

Object = Tuple[Any, Any]


def write_image(path: Path, width: int = 100, height: int = 80) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(path.name))
    Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(path)
    return path


def voc_xml(
    objects: List[Dict[str, Any]],
    filename: Optional[str] = None,
    size: Optional[Tuple[Any, Any]] = (100, 80),
) -> str:
    parts = ['<annotation>']
    if filename is not None:
        parts.append(f'<filename>{filename}</filename>')
    if size is not None:
        parts.append(f'<size><width>{size[0]}</width><height>{size[1]}</height></size>')
    for item in objects:
        corners = ''.join(
            f'<{tag}>{value}</{tag}>'
            for tag, value in zip(('xmin', 'ymin', 'xmax', 'ymax'), item['box'])
        )
        name = f'<name>{item["name"]}</name>' if 'name' in item else ''
        flag = f'<difficult>{item["difficult"]}</difficult>' if 'difficult' in item else ''
        parts.append(f'<object>{name}{flag}<bndbox>{corners}</bndbox></object>')
    return '\n'.join([*parts, '</annotation>'])


@pytest.fixture
def voc(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a VOC root from {stem: objects or XML text or None}.

    Its attributes `xml` and `image` write one XML text and one image.
    """

    def build(images: Dict[str, Any], root: str = 'voc', **kwargs: Any) -> Path:
        folder = tmp_path / root
        (folder / 'Annotations').mkdir(parents=True)
        (folder / 'JPEGImages').mkdir()
        for stem, content in images.items():
            write_image(folder / 'JPEGImages' / f'{stem}.jpg')
            if content is None:
                continue
            if isinstance(content, list):
                content = voc_xml(content, **kwargs)
            data = content if isinstance(content, bytes) else content.encode()
            (folder / 'Annotations' / f'{stem}.xml').write_bytes(data)
        return folder

    build.xml, build.image = voc_xml, write_image
    return build


@pytest.fixture
def txt(tmp_path: Path) -> Callable[..., Tuple[Path, Path]]:
    """Return a function that writes label and image folders from {stem: text or None}."""

    def build(images: Dict[str, Any], root: str = 'txt') -> Tuple[Path, Path]:
        labels, pictures = tmp_path / root / 'labels', tmp_path / root / 'images'
        labels.mkdir(parents=True)
        for stem, content in images.items():
            write_image(pictures / f'{stem}.png')
            if content is not None:
                data = content if isinstance(content, bytes) else content.encode()
                (labels / f'{stem}.txt').write_bytes(data)
        return labels, pictures

    return build
