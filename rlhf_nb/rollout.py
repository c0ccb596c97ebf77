"""Rounds of fresh images: drawn by the policy as it stands, scored by the reward, kept as files.

What is drawn depends on the policy and on (seed, round, image) alone: a killed run finds the rounds that it
had drawn, and of several processes each draws its share of the same batches.
"""

from functools import partial

import torch

from . import diffusion, files, flops, losses, seeds
from .batches import Encoded, Samples


def even(eta, steps):
    """Noise `eta` at every step but the last, whose deviation is next to none: (S,)."""
    return [eta] * (steps - 1) + [0.0]


def guided(predict, empty, guidance):
    """`predict` with classifier-free guidance against the text `empty` (L, D); guidance 1 is none."""

    def both(x_t, t, text):
        texts = torch.cat([empty.to(text).expand_as(text), text])
        without, given = predict(x_t.repeat(2, 1, 1, 1), t.repeat(2), texts).chunk(2)
        return without + guidance * (given - without)

    return both if guidance > 1 else predict


@torch.no_grad()
def recorded(pipe, unet, prompts, *, etas, seed, indices, guidance=1.0, choose=None):
    """DDIM with noise etas (S,) at its steps, and the way it went: {"states" (B, S + 1, C, h, w), "times"
    (B, S + 1), "etas", "log_probs" (B, S), "predicted" (B, S, C, h, w)}.

    The last state is the latents; the last time, -1, is past the end. log_probs are zero where etas are.
    Times trail (999, 899, ...): else Stable Diffusion's last step would go from t = 1, where nothing is left
    to decide. choose(k, clean) -> rows (B,) says which go on after step k, by where one step to the end would
    lead them.
    """
    from diffusers import DDIMScheduler

    schedule = DDIMScheduler.from_config(pipe.scheduler.config, timestep_spacing="trailing")
    schedule.set_timesteps(len(etas))
    times, etas = torch.cat([schedule.timesteps.long(), torch.tensor([-1])]), torch.tensor(etas)
    table, rows = diffusion.encode_prompts(pipe, [*prompts, ""])
    text = table[rows[:-1]].to(unet.device)
    forward = diffusion.forward_process(pipe.scheduler)
    predict = guided(diffusion.predictor(unet), table[rows[-1]], guidance)
    x_t = torch.stack([diffusion.noise_of(pipe, seed, i) for i in indices]).to(unet.device)
    way = {"states": [x_t.cpu()], "log_probs": [], "predicted": []}
    for k, eta in enumerate(etas.to(x_t.device)):
        t, then, end = (times[j].expand(len(x_t)).to(x_t.device) for j in (k, k + 1, -1))
        noise_pred = predict(x_t, t, text)
        mean, deviation = losses.reverse_step(forward, noise_pred, x_t, t, then, eta)
        noise = [torch.randn(mean.shape[1:], generator=seeds.generator(seed + 1, i, k)) for i in indices]
        held, x_t = x_t, mean + deviation * torch.stack(noise).to(mean)
        log_prob = losses.log_prob(x_t, mean, deviation) if eta else x_t.new_zeros(len(x_t))
        if choose:
            clean, _ = losses.reverse_step(forward, noise_pred, held, t, end, 0.0)
            x_t = x_t[choose(k, clean).to(x_t.device)]
        for name, value in (("states", x_t), ("log_probs", log_prob), ("predicted", noise_pred)):
            way[name].append(value.cpu())
    way = {name: torch.stack(values, 1) for name, values in way.items()}
    return way | {"times": times.repeat(len(x_t), 1), "etas": etas.repeat(len(x_t), 1)}


class Rounds:
    """The samples of each round: `rounds.images` pictures of each of `rounds.prompts` of the prompts (U).

    score(images, prompts) -> (B,) is the reward. Files go to `folder`.
    """

    def __init__(self, objective, pipe, score, prompts, folder):
        self.settings, self.engine = objective.settings, objective.engine
        self.method, self.knobs, self.nets = objective.method, objective.knobs, objective.nets
        self.pipe, self.score, self.prompts, self.folder = pipe, score, prompts, folder
        self.way = "times", "etas", *self.method.RECORD

    def samples(self, number):
        """batches.Samples of round `number`; what is on disk already is not drawn again."""
        asked = self.settings.rounds
        chosen = seeds.rows_at(self.settings.seed + 60, number, asked.prompts, len(self.prompts))
        prompt = chosen.repeat_interleave(asked.images)
        parts = torch.arange(len(prompt)).split(self.at_once())
        places = [self.folder / f"round-{number:04d}" / f"{k:04d}.safetensors" for k in range(len(parts))]
        mine = range(self.engine.process_index, len(parts), self.engine.num_processes)
        missing = [k for k in mine if not files.cached_tensors(places[k])]
        if missing:
            with self.nets.acting(self.method.DRAWS) as unet, diffusion.at_work(self.pipe, unet):
                for k in missing:
                    draw = partial(self.drawn, unet, number, parts[k], prompt[parts[k]])
                    drawn = flops.spend(draw, unet, "round", len(parts[k]))
                    files.write_tensors(drawn, places[k])
        self.engine.wait_for_everyone()
        loaded = [files.read_tensors(place) for place in places]
        columns = {name: torch.cat([part[name] for part in loaded]) for name in loaded[0]}
        shard = {name: columns.pop(name) for name in ("mean", "std", "text")}
        shard["prompt"] = columns.pop("row")
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
        seed, indices, way = self.settings.seed + 70, (first + part).tolist(), {}
        if self.method.RECORD:
            more = self.at_once() - len(part)  # a smaller last batch is filled up
            full, places = asked + asked[-1:] * more, indices + indices[-1:] * more
            etas = getattr(self.method, "etas", lambda knobs, _, steps: even(knobs.eta, steps))
            noise = etas(self.knobs, number, rounds.steps)
            way = recorded(self.pipe, unet, full, etas=noise, seed=seed, indices=places)
            latents = way["states"][: len(part), -1].clone()
            way = {name: way[name][: len(part)] for name in self.way}
        else:
            options = {"guidance": rounds.guidance, "steps": rounds.steps, "batch": len(part)}
            drawing = {"seed": seed, "indices": indices, "unet": unet}
            latents = diffusion.sample_latents(self.pipe, asked, **options, **drawing)
        images = diffusion.decode(self.pipe.vae, latents)
        reward = torch.as_tensor(self.score(images, asked)).float()
        text, row = diffusion.encode_prompts(self.pipe, asked)
        deviation = torch.zeros_like(latents)
        return {"mean": latents, "std": deviation, "text": text[row], "row": part, "reward": reward, **way}
