"""Drawing into an image folder: resumably, on one process or many.

accelerate launch -m rlhf_nb.generate settings.yaml     what notebook 02 draws, on all processes
"""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import torch

from . import config, diffusion, files, prompts, runs

PATIENCE = timedelta(hours=6)  # of processes that wait for the first one to draw, hash or save


def draw(pipe, prompts, rows, folder, *, seed, batch=None, progress=None, rank=0, processes=1, **options):
    """An image folder of `prompts` with metadata `rows`, written by a thread beside the drawing.

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
            if not all((Path(folder) / names[i]).exists() for i in part):
                asked = [prompts[i] for i in part]
                images = diffusion.sample(pipe, asked, seed=seed, indices=part, batch=batch, **options)
                if pending:
                    pending.result()  # one batch waits at most, and an error of the writer stops the drawing
                pending = pool.submit(files.save_pngs, folder, images, [names[i] for i in part])
            if progress is not None:
                progress(len(part))
        if pending:
            pending.result()
    if rank == 0:
        files.save_rows(folder, names, rows)


def sample_kept(pipe, prompts, folder, **options):
    """`diffusion.sample` with the pictures kept in `folder`: a killed call goes on where it stopped."""
    draw(pipe, prompts, {"prompt": prompts}, folder, **options)
    return files.ImageFolder(folder)[:]


def main(settings):
    """Draw the images of stage `generate` on all processes.

    Notebook 02, run with the same settings afterwards, finds all drawn and finishes the stage.
    """
    from accelerate import PartialState
    from tqdm.auto import tqdm

    state = PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)
    with state.main_process_first():
        run = runs.Run("generate", settings, needs=["prompts"])
    columns = ("prompt", "category", "split", "use")
    wanted = prompts.wanted(files.read_table(run.read("prompts", "prompts.csv"), columns), settings)
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
