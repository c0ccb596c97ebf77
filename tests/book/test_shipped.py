"""What is shipped of a run, and the blind pairs that a person looks at."""

import pandas as pd
import pytest
import ship
import torch
from eye import blind

from rlhf_nb import diffusion, reward


@pytest.fixture
def toy(smoke, tmp_path, monkeypatch):
    """The smoke run's stages where those at toy scale are looked for."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "toy").symlink_to(smoke / "runs" / "smoke")
    monkeypatch.setenv("RLHF_NB_RUNS", str(tmp_path / "runs"))
    return smoke / "runs" / "smoke"


@pytest.mark.slow
def test_what_is_shipped_is_what_the_run_has_made(toy, tmp_path, monkeypatch, pipe):
    monkeypatch.setattr(ship, "TUNED", tmp_path / "tuned")
    monkeypatch.setattr(ship, "REWARD", tmp_path / "reward")
    ship.main()
    ship.main()  # what was shipped before makes way
    made, shipped = (diffusion.load_unet(of, pipe) for of in (toy / "align" / "unet", tmp_path / "tuned"))
    for name, value in made.state_dict().items():
        assert torch.equal(value.half().float(), shipped.state_dict()[name]), name
    clip = reward.Clip("toy/clip")
    picture, sentence = diffusion.sample(pipe, ["Two cats."], steps=1, guidance=1.0, seed=0), ["Two cats."]
    of_run, of_shipped = (reward.load(of, clip) for of in (toy / "reward" / "model", tmp_path / "reward"))
    assert of_run(picture, sentence) == of_shipped(picture, sentence)


@pytest.mark.slow
def test_blind_pairs(toy, tmp_path):
    blind.draw(tmp_path / "pairs")
    sealed = pd.read_csv(tmp_path / "pairs" / "sealed.csv")
    asked, images, right = blind.drawn()
    one = right["base"] != right["tuned"]
    assert sealed.prompt.tolist() == asked.prompt[one].tolist()
    assert (sealed.judge == "tuned").tolist() == right["tuned"][one].tolist()
    assert len(list((tmp_path / "pairs").glob("sheet-*.png"))) == -(-one.sum() // 20)
    sides = pd.Series(["base", "tuned", "tuned"])
    rows = pd.DataFrame({"prompt": "Two cats.", "left": sides, "judge": "tuned"})
    rows.to_csv(tmp_path / "sealed.csv", index=False)
    blind.unseal(tmp_path, ["R", "L", "-"])
    assert pd.read_csv(tmp_path / "pairs.csv").eye.tolist() == ["tuned", "tuned", "neither"]
    with pytest.raises(ValueError, match="Length"):
        blind.unseal(tmp_path, ["R"])
