"""What an eye saw in pictures of the small model (tests/eye), without sight of prompt or judge."""

from .. import hub
from ..pictures import ImageFolder
from ..prompts import TOY, grammar, phrase
from . import judge

FOLDER = hub.ASSETS.parents[2] / "tests" / "eye"


def labelled(query):
    """The pictures whose rows fit `query`: images uint8 (N, 64, 64, 3), rows (N) with what was seen, and what
    their prompts asked for, a list of Attributes. "label" is whether the eye saw all of it.
    """
    images = ImageFolder(FOLDER)
    rows = images.rows.query(query)
    asked = {phrase(want, new): want for want in grammar(TOY.objects)["combination"] for new in (False, True)}
    wants = [asked[sentence] for sentence in rows.prompt]
    return images[rows.index], rows.assign(label=judge.right(rows, wants)["all"]), wants
