"""The command-line option that overrides values of a config."""

import argparse
from typing import Any

from mmengine.config import DictAction


class CfgOptions(DictAction):
    """MMEngine's ``--cfg-options``, with a sentence where a value is not ``key=value``."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: Any = None,
    ) -> None:
        """Take the values of the option; called by ``argparse``.

        Args:
            parser (argparse.ArgumentParser): Ends the program on a value without ``=``.
            namespace (argparse.Namespace): Gets the values.
            values (Any): ``key=value`` strings.
            option_string (str, optional): The option as it was given.
        """
        for value in values:
            if '=' not in value:
                parser.error(
                    f'argument {option_string}: got {value!r}, expected key=value (quote a value '
                    'that holds blanks).'
                )
        super().__call__(parser, namespace, values, option_string)
