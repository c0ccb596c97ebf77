"""`make tuned`: ship what this run's chapters 01 to 05 made at toy scale: the tuned U-Net, in half precision,
and the reward. Pages that show them say how they were made, from the manifest beside the U-Net.
"""

import shutil

from rlhf_nb import diffusion, hub, runs

TUNED, REWARD = hub.ASSETS / "tuned", hub.ASSETS / "reward"


def main():
    made, learnt = (runs.result("toy", *of) for of in (("align", "unet"), ("reward", "model")))
    unet = diffusion.load_unet(made, diffusion.load("toy/pipeline"))
    for place in (TUNED, REWARD):
        shutil.rmtree(place, ignore_errors=True)
    diffusion.save_unet(unet.half(), TUNED)
    shutil.copy(runs.result("toy", "align", "manifest.json"), TUNED)
    shutil.copytree(learnt, REWARD)


if __name__ == "__main__":
    main()
