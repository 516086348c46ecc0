"""Installs mmdet_contrast, with its configs and tools where mim looks for them.

``mim`` reads ``<package>/.mim/{configs,tools,model-index.yml}``. A wheel gets copies of them, an
editable install gets links, so that edits of the source tree are seen at once.
"""

import os
import shutil
from pathlib import Path
from typing import Dict, List

from setuptools import Command, find_packages, setup
from setuptools.command.build_py import build_py

try:
    from setuptools.command.editable_wheel import editable_wheel
except ImportError:
    # setuptools before 64, which openmim brings, installs without `-e` alone
    editable_wheel = Command

ROOT = Path(__file__).resolve().parent
PACKAGE = 'mmdet_contrast'
MIM_ITEMS = ('configs', 'tools', 'model-index.yml')
IGNORED = shutil.ignore_patterns('__pycache__', '*.py[cod]', '.*', 'work_dirs')


def read_version() -> str:
    """Read the version without importing the package."""
    scope: Dict[str, str] = {}
    exec((ROOT / PACKAGE / 'version.py').read_text(encoding='utf-8'), scope)
    return scope['__version__']


def read_requirements(name: str) -> List[str]:
    """Read the requirement lines of ``requirements/<name>.txt``."""
    text = (ROOT / 'requirements' / f'{name}.txt').read_text(encoding='utf-8')
    lines = (line.split('#')[0].strip() for line in text.splitlines())
    return [line for line in lines if line]


def copy_item(source: Path, target: Path) -> None:
    """Copy a file or a folder to a place that may hold an older copy or a link."""
    remove(target)
    if source.is_dir():
        shutil.copytree(source, target, ignore=IGNORED)
    else:
        shutil.copy2(source, target)


def remove(path: Path) -> None:
    """Remove a link, a file or a folder; never what a link points to."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.is_dir():
        shutil.rmtree(path)


class BuildWithMim(build_py):
    """``build_py`` that copies configs and tools into the built package."""

    def run(self) -> None:
        """Build, then copy; an editable build has links in the source tree instead."""
        super().run()
        if getattr(self, 'editable_mode', False):
            return
        target = Path(self.build_lib, PACKAGE, '.mim')
        # `build/` may hold files of an older tree, which would be packed as well.
        remove(target)
        target.mkdir(parents=True)
        for item in MIM_ITEMS:
            copy_item(ROOT / item, target / item)

    def get_outputs(self, include_bytecode: bool = True) -> List[str]:
        """List the copied files among the outputs of the build."""
        outputs = super().get_outputs(include_bytecode)
        if getattr(self, 'editable_mode', False):
            return outputs
        mim = Path(self.build_lib, PACKAGE, '.mim')
        return outputs + [str(path) for path in sorted(mim.rglob('*')) if path.is_file()]


class EditableWithMim(editable_wheel):
    """``pip install -e`` that links configs and tools into the source tree."""

    def run(self) -> None:
        """Link, then build the editable wheel."""
        folder = ROOT / PACKAGE / '.mim'
        folder.mkdir(exist_ok=True)
        for item in MIM_ITEMS:
            link = folder / item
            remove(link)
            try:
                link.symlink_to(os.path.join('..', '..', item))
            except OSError:
                # Windows allows links only to some users; a copy works until the sources change.
                copy_item(ROOT / item, link)
        if self.dist_info_dir is None:
            Path(self.dist_dir).mkdir(parents=True, exist_ok=True)
            dist_info = self.reinitialize_command('dist_info')
            dist_info.output_dir = self.dist_dir
            dist_info.ensure_finalized()
            dist_info.run()
            self.dist_info_dir = dist_info.dist_info_dir
        # mim looks for `<site-packages>/<first line of top_level.txt>/.mim`, and an editable
        # package is not in site-packages. An absolute path there leads mim to the source tree.
        top_level = Path(self.dist_info_dir, 'top_level.txt')
        top_level.write_text(f'{ROOT / PACKAGE}\n{PACKAGE}\n', encoding='utf-8')
        super().run()


if __name__ == '__main__':
    os.chdir(ROOT)
    optional = read_requirements('optional')
    mmdet = [line for line in optional if line.startswith(('mmcv', 'mmdet', 'mmengine'))]
    setup(
        name=PACKAGE,
        version=read_version(),
        description='Region-contrastive learning and distillation for MMDetection',
        long_description=(
            (ROOT / 'README.md').read_text(encoding='utf-8')
            if (ROOT / 'README.md').exists()
            else ''
        ),
        long_description_content_type='text/markdown',
        license='Apache-2.0',
        python_requires='>=3.8',
        packages=find_packages(include=[PACKAGE, f'{PACKAGE}.*']),
        include_package_data=False,
        install_requires=read_requirements('runtime'),
        extras_require={
            'mmdet': mmdet,
            'optional': [line for line in optional if line not in mmdet],
            'shards': ['webdataset'],
            'tests': read_requirements('tests'),
        },
        cmdclass={'build_py': BuildWithMim, 'editable_wheel': EditableWithMim},
        classifiers=[
            'License :: OSI Approved :: Apache Software License',
            'Programming Language :: Python :: 3',
        ],
        zip_safe=False,
    )
