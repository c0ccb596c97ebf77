"""What trains nothing: one module each, with its Knobs and one function.

    draw(pipe, prompts, knobs, *, guidance, steps, seed, indices=None, ...) -> uint8 images (N, H, W, 3)

One image a prompt, which depends on (seed, index, prompt) and the numbers alone, as those of diffusion.sample
do. `score` is a reward, (images, prompts) -> (N,), `unet` a tuned U-Net. `methods.load("drawing.mixing")`
loads one.
"""
