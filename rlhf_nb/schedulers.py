"""Noise schedules of model folders, and our sampler for them."""

from diffusers import DDPMScheduler, DPMSolverMultistepScheduler

from . import config, hub, losses

TIMES = 1000  # of the noise schedule
SOLVER = {  # ours, whichever sampler a folder names and however it is set
    "algorithm_type": "dpmsolver++",
    "solver_type": "midpoint",
    "solver_order": 2,
    "final_sigmas_type": "zero",
    "thresholding": False,
    "variance_type": None,
}


def schedule(name):
    """The sampler for the noise schedule in a folder or hub name."""
    with hub.named("scheduler", name):
        given = DPMSolverMultistepScheduler.load_config(hub.place(name), subfolder="scheduler")
        found = solver(given, given.get("_class_name"))
        found.set_timesteps(2)
    kind = found.config.prediction_type
    if kind not in losses.PREDICTIONS:
        raise hub.ModelError(
            f"{name!r} predicts {kind!r}: give a model that predicts one of {', '.join(losses.PREDICTIONS)}"
        )
    if found.config.num_train_timesteps != TIMES or not found.alphas_cumprod.isfinite().all():
        raise hub.ModelError(
            f"the noise schedule of {name!r} is not one of {TIMES} finite steps: restore its "
            "scheduler_config.json"
        )
    return found


def sampler(scheduler):
    """DPM-Solver++ (Lu et al., 2022) for the noise schedule of `scheduler`."""
    return solver(scheduler.config, type(scheduler).__name__)


def solver(given, kind):
    """DPM-Solver++ for the noise schedule that the configuration `given` of a class `kind` sets."""
    options = dict(SOLVER)
    if "FlowMatch" in str(kind):
        shift = given.get("shift", 1.0)
        options |= {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": shift}
    return DPMSolverMultistepScheduler.from_config(given, **options)


def forward_process(scheduler):
    """The scheduler that training noises latents with.

    A sampler's own add_noise knows only the few steps it samples at; flow matching needs none.
    """
    if scheduler.config.prediction_type == "flow_prediction":
        return scheduler
    return DDPMScheduler.from_config(scheduler.config)


def check_steps(scheduler, steps):
    """Raise ConfigError where a scheduler has no `steps` different times."""
    scheduler.set_timesteps(steps)
    if (scheduler.timesteps.diff() >= 0).any():
        raise config.ConfigError(
            f"the model's noise schedule has no {steps} different times to draw at: lower `steps`"
        )
