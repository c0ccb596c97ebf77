"""Code of the package on a page, beside the equation that it is: shown from the module, never copied."""

import ast
import inspect
import textwrap

from IPython.display import Markdown


def code(*functions):
    """The source of functions or classes without their docstrings, as a block that is coloured as Python."""
    return Markdown("```python\n" + "\n\n\n".join(map(_source, functions)) + "\n```")


def _source(function):
    lines = textwrap.dedent(inspect.getsource(function)).splitlines()
    [made] = ast.parse("\n".join(lines)).body
    if ast.get_docstring(made) is not None:
        told = made.body[0]
        del lines[told.lineno - 1 : told.end_lineno]
        while not lines[told.lineno - 1].strip():
            del lines[told.lineno - 1]
    return "\n".join(lines)
