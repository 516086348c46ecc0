"""Curves, pictures and the config of a run on the page of a Visdom server."""

import html
import logging
import math
import os.path as osp
from pathlib import Path
from typing import Any, Dict, List, Optional, Set, Union

import numpy as np
import torch
from mmdet.registry import VISBACKENDS
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.utils import mkdir_or_exist
from mmengine.visualization.vis_backend import BaseVisBackend, force_init_env

# Seconds to connect, and between two bytes of an answer.
_TIMEOUT = (2, 10)


def _connect(**kwargs: Any) -> Any:
    """Build a client that writes to its file alone once the server does not answer."""
    import requests
    import visdom

    class Client(visdom.Visdom):
        """Visdom's client, which asks the server nothing and gives up after one failure."""

        def __init__(self, **kwargs: Any) -> None:
            self.windows: Set[str] = set()
            super().__init__(**kwargs)

        def _send(self, msg: dict, *args: Any, **kwargs: Any) -> Any:
            self.windows.add(msg.get('win', ''))
            return super()._send(msg, *args, **kwargs)

        def win_exists(self, win: str, env: Optional[str] = None) -> bool:
            # Without asking the server: a run begins its windows anew, so its file is complete.
            return win in self.windows

        def _handle_post(self, url: str, data: Any = None) -> str:
            try:
                answer = self.session.post(url, data=data, timeout=_TIMEOUT)
                answer.raise_for_status()
            except requests.RequestException as error:
                self.offline = True
                MMLogger.get_current_instance().warning(
                    f'No Visdom server answers at {self.server}:{self.port} '
                    f'({type(error).__name__}): curves and pictures of this run go to '
                    f'{self.log_to_filename} alone.'
                )
                return ''
            return answer.text

    # It warns of every new session, and that a client without a socket hears no clicks.
    logging.getLogger('visdom').setLevel(logging.ERROR)
    return Client(use_incoming_socket=False, **kwargs)


@VISBACKENDS.register_module()
class VisdomVisBackend(BaseVisBackend):
    """Show scalars, images and the config of a run on a Visdom server (``pip install visdom``).

    A tag has a window to which its values are appended, an image name one with a slider over the
    steps. Everything is written to ``visdom.log`` as well. When the server does not answer, at the
    start or later, a warning says so and training goes on with the file alone;
    ``visdom.Visdom().replay_log(file)`` shows it on a server.

    Args:
        save_dir (str): Folder of ``visdom.log``; the runner fills it in.
        init_kwargs (dict, optional): Arguments of ``visdom.Visdom``: ``server``
            (``'http://localhost'``), ``port`` (8097), ``username``, ``env`` … An ``env`` is the
            page of a run; by default it is named after the work directory and the time of start.

    Example:
        >>> vis_backends = [dict(type='LocalVisBackend'), dict(type='VisdomVisBackend')]
    """

    def __init__(self, save_dir: str, init_kwargs: Optional[dict] = None) -> None:
        super().__init__(save_dir)
        self._init_kwargs = init_kwargs or {}
        self._last_steps: Dict[str, List[int]] = {}

    def _init_env(self) -> None:
        mkdir_or_exist(self._save_dir)
        # <work directory>/<time of start>/vis_data
        env = '_'.join(Path(self._save_dir).resolve().parts[-3:-1])
        log = osp.join(self._save_dir, 'visdom.log')
        self._visdom = _connect(**{'env': env, 'log_to_filename': log, **self._init_kwargs})

    @property
    @force_init_env
    def experiment(self) -> Any:
        """The ``visdom.Visdom`` client."""
        return self._visdom

    @force_init_env
    def add_config(self, config: Config, **kwargs: Any) -> None:
        """Show the config as text."""
        text = f'<pre>{html.escape(config.pretty_text)}</pre>'
        self._visdom.text(text, win='config', opts=dict(title='config', width=600, height=350))

    @force_init_env
    def add_image(self, name: str, image: np.ndarray, step: int = 0, **kwargs: Any) -> None:
        """Add an image, (H, W, 3) uint8 RGB, to the window of its name."""
        opts = dict(title=name, caption=f'step {step}', store_history=True, jpgquality=90)
        self._visdom.image(image.transpose(2, 0, 1), win=name, opts=opts)

    @force_init_env
    def add_scalar(
        self,
        name: str,
        value: Union[int, float, torch.Tensor, np.ndarray],
        step: int = 0,
        **kwargs: Any,
    ) -> None:
        """Append a value to the line of its tag; what is no number has no line."""
        if not isinstance(value, (int, float, torch.Tensor, np.ndarray, np.number)):
            return
        # Training counts iterations, validation epochs, and both log `time`: a line goes forwards
        # only, and what lies before the ends of all lines of a tag begins another one.
        ends = self._last_steps.setdefault(name, [])
        line = max(
            (index for index, end in enumerate(ends) if end <= step),
            key=ends.__getitem__,
            default=len(ends),
        )
        ends[line : line + 1] = [step]
        number = float(value)
        # JSON has no infinity
        number = number if math.isfinite(number) else math.nan
        self._visdom.line(
            np.array([number]),
            np.array([step]),
            win=name,
            # line 0 bears the tag alone
            name=f'{name} ({line + 1})' if line else name,
            update='append' if self._visdom.win_exists(name) else None,
            opts=dict(title=name, xlabel='step', markers=True, markersize=4),
        )

    def add_scalars(
        self,
        scalar_dict: Dict[str, Any],
        step: int = 0,
        file_path: Optional[str] = None,
        **kwargs: Any,
    ) -> None:
        """Append each value to the line of its tag."""
        for name, value in scalar_dict.items():
            self.add_scalar(name, value, step)

    def close(self) -> None:
        """Have the server keep the page on its disk; the backend can be used on."""
        if self._env_initialized:
            self._visdom.save([self._visdom.env])
