"""The prompt explorer without a browser: what is typed or chosen is drawn by both models and read."""

import re

import numpy as np
import pytest

from rlhf_nb import diffusion
from rlhf_nb.config import UserError
from rlhf_nb.figures import png
from rlhf_nb.page import explorer
from rlhf_nb.page.explorer import Explorer, wish
from rlhf_nb.prompts import TOY, Attributes, grammar, phrase

DRAWING = {"guidance": 1.0, "steps": 2}


@pytest.fixture
def made(pipe, reader):
    """explorer(**more) with the base model twice, so that equal noise shows."""
    return lambda **more: Explorer(pipe, {"base": pipe.unet, "tuned": pipe.unet}, **DRAWING, **more)


def sources(widget):
    return re.findall(r'src="([^"]+)"', widget.pair.value)


def test_what_a_sentence_asks_for_is_what_the_grammar_put_into_it():
    for wants in grammar(TOY.objects).values():
        for want in wants[:: len(wants) // 20]:
            for reworded in (False, True):
                assert wish(phrase(want, reworded)) == (want, [])
    assert wish("Someone bored & a dog, a DOG") == (Attributes(None), ["someone", "bored", "dog"])


def test_a_typed_prompt_is_drawn_by_both_from_one_noise(made, pipe, reader):
    widget = made(reader=reader)
    assert not sources(widget)  # nothing before it is asked for
    widget.prompt.value = "Two green cats on the moon."
    own = diffusion.sample(pipe, [widget.prompt.value], seed=0, **DRAWING)
    first, second = sources(widget)
    assert first == second and first.endswith(explorer.b64encode(png(own[0])).decode())
    said = {name: menu.value for name, menu in widget.menus.items()}
    assert said == {"count": 2, "colour": "green", "object": "cat", "background": "on the moon"}
    right = reader.examine(own, [Attributes(**said)])
    assert widget.pair.value.count("✓ right") == 2 * sum(right[name][0] for name in said)
    assert widget.pair.value.count("<li>") == 10 and not widget.status.value
    widget.noise.value = 1
    assert sources(widget)[0] == sources(widget)[1] != first
    widget.noise.value = 0
    assert sources(widget) == [first, second]


def test_menus_make_the_sentence(made):
    widget = made()
    widget.menus["colour"].value = "red"
    assert widget.prompt.value == "A red colored airplane." and widget.menus["object"].value == "airplane"
    widget.menus["count"].value = 3
    widget.menus["object"].value = "cat"
    assert widget.prompt.value == "Three red cats." and len(sources(widget)) == 2
    assert "<ul" not in widget.pair.value  # nobody reads


def test_it_draws_once_for_a_prompt(made, monkeypatch):
    drawn, widget = [], made()
    monkeypatch.setattr(
        diffusion, "sample", lambda *_, **__: drawn.append(1) or np.zeros((1, 64, 64, 3), np.uint8)
    )
    widget.button.click()
    assert len(drawn) == 2 and not widget.status.value
    widget.button.click()
    widget.menus["object"].value = "cat"
    widget.button.click()
    assert len(drawn) == 4


def test_unknown_words_and_markup_are_told_as_words(made, reader):
    widget = made(reader=reader)
    widget.prompt.value = '<b>Dogs</b> "or" cats'
    assert "had: b, dogs, or" in widget.status.value and "<b>" not in widget.pair.value
    assert 'alt="base model: &lt;b&gt;Dogs&lt;/b&gt; &quot;or&quot; cats"' in widget.pair.value
    widget.prompt.value = "A dog"
    assert "names an object of the menu" in widget.pair.value
    other = made(known=False)  # a model that has read more
    other.prompt.value = "A dog"
    assert not other.status.value


def test_an_error_is_one_sentence_and_the_next_prompt_is_drawn(made, monkeypatch):
    widget = made()

    def fails(*_, **__):
        raise UserError("the <disk>\nis full")

    with monkeypatch.context() as broken:
        broken.setattr(diffusion, "sample", fails)
        widget.prompt.value = "A cat."
        assert "This did not work: the &lt;disk&gt; is full." in widget.status.value and not sources(widget)
    widget.button.click()  # once more
    assert len(sources(widget)) == 2 and "work" not in widget.status.value
