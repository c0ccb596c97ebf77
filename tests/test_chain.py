"""The paper's path on a real model's folder: own pictures and people's labels, from 01 to 07 and in 11."""

import numpy as np
import pandas as pd
import pytest
import shells
from conftest import tiny_owl
from PIL import Image

from rlhf_nb import files

SENTENCES = [
    "a dog on the beach",
    "two red cars",
    "a photo of a cat, oil painting",
    "an astronaut",
    "three apples on a table",
    "a house in the snow",
]


def own_pictures(folder):
    """Pictures of several sizes and kinds, with metadata as people write it: its rows."""
    rng, rows = np.random.default_rng(0), []
    folder.mkdir()
    for i in range(18):
        name = f"img_{i:02d}.{('jpg', 'png', 'webp')[i % 3]}"
        Image.fromarray(rng.integers(0, 255, (50 + i, 80, 3), dtype=np.uint8)).save(folder / name)
        rows.append({"file_name": name, "text": SENTENCES[i % 6]})
    pd.DataFrame(rows).to_csv(folder / "metadata.csv", index=False)
    return rows


@pytest.mark.slow
def test_own_pictures_and_peoples_labels_go_through_the_book_at_scale_sd15(sd15):
    rows = own_pictures(sd15 / "own")
    labels = [
        {"rater": rater, "image": row["file_name"], "prompt": row["text"], "label": ("good", "bad")[i % 2]}
        for i, row in enumerate(rows)
        for rater in ("ann", "bob")
    ]
    pd.DataFrame(labels).to_csv(sd15 / "labels.csv", index=False)
    pipeline, clip = {"pipeline": f"{sd15}/sd"}, {"clip": f"{sd15}/clip"}
    judge = {"judge": str(tiny_owl("Owlv2", sd15 / "owl"))}
    measured = {**pipeline, **clip, **judge, "real": f"{sd15}/own", "renders": 4, "steps": 2}
    given = {
        "01_prompts": {"to_label": 6, "to_evaluate": 2, "to_tune": 2, "to_test": 2},
        "02_generate": pipeline | {"pictures": f"{sd15}/own", "steps": 2},
        "03_feedback": {"imported": f"{sd15}/labels.csv"},
        "04_reward": clip | {"updates": 4, "batch": 8, "seeds": 2},
        "10_stress": {"updates": 2, "hidden": 8},
        "05_align": {
            **pipeline,
            **clip,
            **judge,
            **{"pretraining": f"{sd15}/own", "min_score": 0.0, "updates": 2, "lora": 2},
            **{"model_batch": 4, "pre_batch": 4, "accumulate": 2, "extras": []},
        },
        "06_evaluate": measured | {"guidances": [3.0], "voted": 1},
        "07_best_of_n": measured | {"prompts": 2, "most": 2},
        "11_reach": {},
    }
    given = {name: {"scale": "sd15"} | of for name, of in given.items()}
    shells.executed(given, RLHF_NB_RUNS=f"{sd15}/runs")
    made = sd15 / "runs/sd15"
    drawn = files.read_table(made / "generate/images/metadata.csv", ("file_name", "source", "prompt"))
    assert sorted(drawn.source) == sorted(row["file_name"] for row in rows)
    said = files.read_table(made / "feedback/labels.csv", ("label",))
    assert len(said) and set(said.label) == {0, 1}
    assert (made / "align/unet/pytorch_lora_weights.safetensors").exists()
    quality = files.read_table(made / "evaluate/quality.csv", {"base": float, "tuned": float})
    assert quality[["base", "tuned"]].notna().all(None)
    assert len(files.read_table(made / "best_of_n/best_of_n.csv"))
    assert len(files.read_table(made / "reach/votes.csv"))
