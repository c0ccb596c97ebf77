"""Images of prompts in an image folder: drawn, resumably, on one process or many; or a person's own.

accelerate launch -m rlhf_nb.generate settings.yaml     what notebook 02 draws, on all processes
"""

import shutil
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import numpy as np
import pandas as pd
import torch

from . import config, data, diffusion, files, pictures, prompts, runs

PATIENCE = timedelta(hours=6)  # of processes that wait for the first one to draw, hash or save


def draw(pipe, prompts, rows, folder, *, seed, batch=None, progress=None, rank=0, processes=1, **options):
    """An image folder `folder` (a Path) of `prompts` with metadata `rows`, written by a thread beside the
    drawing.

    Options as in `diffusion.sample_latents`. What is there already is not drawn again: a killed call goes on
    where it stopped and ends with the same bits. Of several processes each draws its own batches; the first
    writes the metadata.
    """
    names = [f"{i:06d}.png" for i in range(len(prompts))]
    batch = batch or diffusion.batch_of(pipe)
    starts = range(0, len(prompts), batch)
    with ThreadPoolExecutor(1) as pool:
        pending = None
        for start in starts[rank::processes]:
            part = range(start, min(start + batch, len(prompts)))
            if not all((folder / names[i]).exists() for i in part):
                asked = [prompts[i] for i in part]
                images = diffusion.sample(pipe, asked, seed=seed, indices=part, batch=batch, **options)
                if pending:
                    pending.result()  # one batch waits at most, and an error of the writer stops the drawing
                pending = pool.submit(pictures.save_pngs, folder, images, [names[i] for i in part])
            if progress is not None:
                progress(len(part))
        if pending:
            pending.result()
    if rank == 0:
        pictures.save_rows(folder, names, rows)


def sample_kept(pipe, prompts, folder, **options):
    """`diffusion.sample` with the pictures kept in `folder`: a killed call goes on where it stopped."""
    draw(pipe, prompts, {"prompt": prompts}, folder, **options)
    return pictures.ImageFolder(folder)[:]


def collect(pipe, table, folder, settings):
    """An image folder of a person's own pictures in place of drawn ones: its rows, and what was left out.

    Pictures get the side that the model draws; `source` is the name each came under. Raises ArtifactError
    where they are of fewer prompts than the reward needs.
    """
    if settings.pictures == "world":
        raise config.ConfigError("'world' has no pictures of its own: leave `pictures` out to draw them")
    shutil.rmtree(folder, ignore_errors=True)  # of an attempt with what the source held before
    side = pipe.unet.config.sample_size * pipe.vae_scale_factor
    own, found = data.CaptionedImages(settings.pictures, size=side), []
    for name, caption, image in own.named():
        pictures.save_pngs(folder, [image], [f"{len(found):06d}.png"])
        found.append((name, " ".join(caption.split())))
    rows = described(pd.DataFrame(found, columns=["source", "prompt"]), table, settings.seed)
    learnt = rows.prompt[rows.use == "label"].nunique()
    if learnt < 3:
        raise files.ArtifactError(
            f"{settings.pictures} has pictures of {learnt} prompts to learn from, beside those that measure "
            "the reward: give at least 3, or 4 in all"
        )
    pictures.save_rows(folder, [f"{i:06d}.png" for i in range(len(rows))], rows)
    return rows, own.left_out()


def described(own, table, seed):
    """Rows as of drawn images for `own` pictures (source, prompt), by the prompt table.

    A sentence outside it is a combination to learn from, without attributes. What waits for evaluation is
    never learnt from; where nothing waits, one prompt in five is set aside.
    """
    rows = own.join(table.drop_duplicates("prompt").set_index("prompt"), on="prompt")
    rows = rows.fillna({"category": "combination", "split": "seen", "novelty": "none", "use": "label"})
    rows["use"] = rows.use.where(rows.use == "label", "test")
    rows["split"] = rows.split.replace("validation", "heldout")
    if not (rows.use == "test").any():
        names = np.random.default_rng([seed, 6]).permutation(np.sort(rows.prompt.unique()))
        aside = rows.prompt.isin(names[: -(-len(names) // 5)])
        rows.loc[aside, ["split", "novelty", "use"]] = "heldout", "prompt", "test"
    return rows


def main(settings):
    """Draw the images of stage `generate` on all processes.

    Notebook 02, run with the same settings afterwards, finds all drawn and finishes the stage.
    """
    from accelerate import PartialState
    from tqdm.auto import tqdm

    if settings.pictures:
        raise config.ConfigError("own pictures are not drawn: run notebook 02 with `pictures` by itself")
    state = PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)
    with state.main_process_first():
        run = runs.Run("generate", settings, needs=["prompts"])
    wanted = prompts.wanted(prompts.read(run), settings)
    share = -(-len(wanted) // state.num_processes)
    with tqdm(total=share, desc="images", disable=not state.is_main_process) as bar:
        draw(
            diffusion.load(settings.pipeline),
            wanted.prompt.tolist(),
            wanted.assign(guidance=settings.guidance),
            run.path("images"),
            guidance=settings.guidance,
            steps=settings.steps,
            seed=settings.seed + 1,
            progress=bar.update,
            rank=state.process_index,
            processes=state.num_processes,
        )
    state.wait_for_everyone()


if __name__ == "__main__":
    config.command("generate", main)
