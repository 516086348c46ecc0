"""Turn the reStructuredText in the package's docstrings into Markdown, for mkdocstrings."""

import re
from typing import Any

import griffe

_FORMULA = r'^( *)\.\. math::\s*\n((?:\1 +.*\n)+)'


def to_markdown(text: str) -> str:
    """Replace roles, formulas and literal blocks; everything else is Markdown already.

    Example:
        >>> to_markdown('With :class:`~mmdet.Head` and :math:`x`:')
        'With `Head` and $x$:'
    """
    text = re.sub(r':math:`([^`]+)`', r'$\1$', text)
    text = re.sub(r':\w+:`~[\w.]*?(\w+)`', r'`\1`', text)
    text = re.sub(r':\w+:`([^`]+)`', r'`\1`', text)
    text = re.sub(_FORMULA, r'\1$$\n\2\1$$\n\n', text + '\n', flags=re.M)
    # griffe knows the section by its plural only
    text = re.sub(r'^( *)Example:$', r'\1Examples:', text, flags=re.M)
    return re.sub(r'::$', ':', text, flags=re.M).rstrip()


class RstDocstrings(griffe.Extension):
    """Hand every docstring on as Markdown."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Change the docstring of a module, class, function or attribute, once it is read."""
        if obj.docstring:
            obj.docstring.value = to_markdown(obj.docstring.value)
