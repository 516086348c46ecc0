"""The model section of a config."""

from pathlib import Path
from typing import Optional, Union

from mmengine.config import Config, ConfigDict


def model_section(
    config: Union[dict, str, Path], data_preprocessor: Optional[dict] = None
) -> ConfigDict:
    """Return what a config says of its model.

    Args:
        config (dict | str | Path): A ``model`` section, a whole config, or the path of one.
        data_preprocessor (dict, optional): For a model that has none, nor its config beside it.

    Returns:
        ConfigDict: The ``model`` section. As a ``Runner`` does it, what stands beside it in a whole
        config as ``data_preprocessor`` is in it, if it has none of its own.
    """
    if isinstance(config, (str, Path)):
        config = Config.fromfile(str(config))
    if 'model' in config:
        data_preprocessor = config.get('data_preprocessor') or data_preprocessor
        config = config['model']
    section = ConfigDict(config)
    if data_preprocessor is not None:
        section.setdefault('data_preprocessor', data_preprocessor)
    return section
