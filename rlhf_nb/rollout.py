"""Rounds of fresh images: drawn by the policy as it stands, scored by the reward, kept as files.

What is drawn depends on the policy and on (seed, round, image) alone: a killed run finds the rounds that it
had drawn, and of several processes each draws its share of the same batches.
"""

import numpy as np
import torch
from safetensors.torch import load_file

from . import diffusion, files, losses, seeds
from .batches import Encoded, Samples


@torch.no_grad()
def recorded(pipe, unet, prompts, *, steps, eta, seed, indices):
    """DDIM without guidance, with the way it went: {"states" (B, S + 1, C, h, w), "times" (B, S + 1),
    "log_probs" (B, S)}.

    The last state is the latents; the last time, -1, is past the end. log_probs are zero where eta is.
    """
    from diffusers import DDIMScheduler

    schedule = DDIMScheduler.from_config(pipe.scheduler.config)
    schedule.set_timesteps(steps)
    times = torch.cat([schedule.timesteps.long(), torch.tensor([-1])])
    forward, predict = diffusion.forward_process(pipe.scheduler), diffusion.predictor(unet)
    table, rows = diffusion.encode_prompts(pipe, prompts)
    text = table[rows].to(unet.device)
    x_t = torch.stack([diffusion.noise_of(pipe, seed, i) for i in indices]).to(unet.device)
    states, log_probs = [x_t], []
    for k in range(steps):
        t, then = (times[j].expand(len(x_t)).to(x_t.device) for j in (k, k + 1))
        mean, deviation = losses.reverse_step(forward, predict(x_t, t, text), x_t, t, then, eta)
        noise = [torch.randn(mean.shape[1:], generator=seeds.generator(seed + 1, i, k)) for i in indices]
        x_t = mean + deviation * torch.stack(noise).to(mean)
        states.append(x_t)
        log_probs.append(losses.log_prob(x_t, mean, deviation) if eta else x_t.new_zeros(len(x_t)))
    return {
        "states": torch.stack(states, 1).cpu(),
        "times": times.repeat(len(x_t), 1),
        "log_probs": torch.stack(log_probs, 1).cpu(),
    }


class Rounds:
    """The samples of each round: `rounds.images` pictures of each of `rounds.prompts` of the prompts (U).

    score(images, prompts) -> (B,) is the reward. Files go to `folder`.
    """

    def __init__(self, objective, pipe, score, prompts, folder):
        self.settings, self.engine = objective.settings, objective.engine
        self.method, self.knobs, self.nets = objective.method, objective.knobs, objective.nets
        self.pipe, self.score, self.prompts, self.folder = pipe, score, prompts, folder

    def samples(self, number):
        """batches.Samples of round `number`; what is on disk already is not drawn again."""
        asked = self.settings.rounds
        chosen = seeds.rows_at(self.settings.seed + 60, number, asked.prompts, len(self.prompts))
        prompt = chosen.repeat_interleave(asked.images)
        parts = torch.arange(len(prompt)).split(self.at_once())
        places = [self.folder / f"round-{number:04d}" / f"{k:04d}.safetensors" for k in range(len(parts))]
        mine = range(self.engine.process_index, len(parts), self.engine.num_processes)
        missing = [k for k in mine if not places[k].exists()]
        if missing:
            with self.nets.acting(self.method.DRAWS) as unet, diffusion.at_work(self.pipe, unet):
                for k in missing:
                    drawn = self.drawn(unet, number, parts[k], prompt[parts[k]])
                    files.write_tensors(drawn, places[k])
        self.engine.wait_for_everyone()
        loaded = [load_file(place) for place in places]
        columns = {name: torch.cat([part[name] for part in loaded]) for name in loaded[0]}
        shard = {name: columns.pop(name) for name in ("mean", "std", "text", "row")}
        shard["prompt"] = shard.pop("row")
        group = torch.arange(asked.prompts).repeat_interleave(asked.images)
        return Samples(Encoded([shard]), prompt=prompt, group=group, **columns)

    def at_once(self):
        """How many pictures are drawn in one batch.

        A recorded way is drawn in batches of the size that it is trained on: the last bits of a batch depend
        on its size, and the ratio of both densities is to be exactly 1 before the first update.
        """
        if self.method.RECORD:
            return -(-self.settings.model_batch // self.settings.accumulate)
        return diffusion.batch_of(self.pipe)

    def drawn(self, unet, number, part, prompt):
        """Pictures `part` of a round as tensors: latents, text, reward and, if it is recorded, the way."""
        asked, rounds = [self.prompts[i] for i in prompt.tolist()], self.settings.rounds
        first = number * rounds.prompts * rounds.images
        seed, indices = self.settings.seed + 70, (first + part).tolist()
        options = {"steps": rounds.steps, "seed": seed, "indices": indices}
        if self.method.RECORD:
            more = self.at_once() - len(part)  # a smaller last batch is filled up
            options["indices"] += options["indices"][-1:] * more
            way = recorded(self.pipe, unet, asked + asked[-1:] * more, eta=self.knobs.eta, **options)
            way = {name: value[: len(part)] for name, value in way.items()}
            latents = way["states"][:, -1].clone()
        else:
            way = {}
            options |= {"guidance": rounds.guidance, "batch": len(part), "unet": unet}
            latents = diffusion.sample_latents(self.pipe, asked, **options)
        images = diffusion.decode(self.pipe.vae, latents)
        reward = torch.from_numpy(np.asarray(self.score(images, asked), np.float32))
        text, row = diffusion.encode_prompts(self.pipe, asked)
        deviation = torch.zeros_like(latents)
        return {"mean": latents, "std": deviation, "text": text[row], "row": part, "reward": reward, **way}
