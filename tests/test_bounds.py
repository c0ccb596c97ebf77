"""What is larger than this machine, or leaves nothing to measure, is refused with the settings."""

import pytest

from rlhf_nb import bounds, config


def test_what_does_not_fit_says_how_much_it_needs():
    bounds.fit(10**6, "a million numbers")
    with pytest.raises(ValueError, match=r"x need [\d,]+ GB of memory and this machine has \d+: give fewer"):
        bounds.fit(10**15, "x")
    with pytest.raises(config.ConfigError, match="'reward': batch x candidates x hidden numbers need"):
        config.settings("reward", batch=2**16, candidates=1000, hidden=2**16)


@pytest.mark.parametrize(
    "stage, given",
    [
        ("prompts", {"seed": 2**64}),
        ("prompts", {"seed": -1}),
        ("prompts", {"to_evaluate": 1}),
        ("generate", {"per_simple": 10**9}),
        ("generate", {"steps": 1001}),
        ("generate", {"guidance": 1e308}),
        ("generate", {"pipeline": "\0"}),
        ("feedback", {"raters": 10**9}),
        ("feedback", {"imported": "x" * 5000}),
        ("reward", {"hidden": 10**9}),
        ("align", {"pre_images": 10**9}),
        ("align", {"ema": 1.0}),
        ("align", {"lora_targets": []}),
        ("evaluate", {"renders": 1}),
        ("evaluate", {"renders": 10**9}),
        ("evaluate", {"guidances": [1e308]}),
        ("best_of_n", {"most": 1}),
        ("study", {"prompts": 1}),
    ],
)
def test_what_is_out_of_bounds_is_named(stage, given):
    with pytest.raises(
        config.ConfigError, match=f"parameter {next(iter(given))!r} of notebook {stage!r} must"
    ):
        config.settings(stage, **given)
