"""What choosing among n pictures costs, and what tuning does: for chapter 07 and the front page."""


def passes(training, steps, guidance):
    """Passes through the U-Net of a training, by its settings, and of one picture of the base model.

    A row takes three, one forward and a backward worth two; a step of drawing one, under guidance two.
    """
    rows = training["model_batch"] + training["pre_batch"]
    return 3 * training["updates"] * rows, steps * (1 + (guidance > 1))


def paid(to_tune, picture, n):
    """After how many pictures tuning has cost as much as choosing each from n: never, where n is one."""
    return to_tune / picture / (n - 1) if n > 1 else float("inf")
