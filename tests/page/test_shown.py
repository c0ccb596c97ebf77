"""Code on a page: the package's own, without docstrings."""

import ast
import inspect

from rlhf_nb import losses
from rlhf_nb.page import shown


def test_it_is_the_function_without_its_docstring():
    [block] = shown.code(losses.reward_mse).data.split("```")[1:-1]
    source = block.removeprefix("python\n")
    [shown_one], [own] = ast.parse(source).body, ast.parse(inspect.getsource(losses.reward_mse)).body
    assert ast.dump(shown_one) == ast.dump(ast.FunctionDef(**{**vars(own), "body": own.body[1:]}))


def test_comments_stay_and_several_stand_apart():
    text = shown.code(losses.weights, losses.shares).data
    assert text.count("\n\n\ndef ") == 1 and '"""' not in text
