"""The counter: matrix products, and attention, which PyTorch's own leaves out on processors."""

import copy

import torch
import torch.nn.functional as F

from rlhf_nb import diffusion, flops, train


def test_products_and_attention_are_counted():
    a, b = torch.randn(3, 4), torch.randn(4, 5)
    assert flops.count(lambda: a @ b) == 2 * 3 * 4 * 5
    query, key = torch.randn(2, 4, 64, 8), torch.randn(2, 4, 20, 8)
    scores_and_values = 2 * (2 * 2 * 4 * 64 * 20 * 8)
    assert flops.count(lambda: F.scaled_dot_product_attention(query, key, key)) == scores_and_values


def test_work_is_counted_once_and_added_every_time():
    layer, x = torch.nn.Linear(4, 5, bias=False), torch.randn(3, 4)
    before = flops.spent
    values = [flops.spend(lambda: layer(x), layer, "forward") for _ in range(3)]
    assert flops.spent - before == 3 * 2 * 3 * 4 * 5 and values[0].equal(values[2])


def test_work_within_work_counts_as_itself():
    outer, inner, x = (
        torch.nn.Linear(4, 4, bias=False),
        torch.nn.Linear(4, 4, bias=False),
        torch.randn(1, 4),
    )
    before = flops.spent
    for _ in range(2):
        flops.spend(lambda: outer(flops.spend(lambda: inner(x), inner)), outer)
    assert flops.spent - before == 2 * 2 * 32


def test_a_picture_and_a_training_step_cost_what_their_passes_do(pipe):
    one, two = (
        spent(lambda k=k: diffusion.sample(pipe, ["A cup."] * 3, guidance=2.0, steps=k, seed=0))
        for k in (2, 3)
    )
    latents, t = torch.randn(6, 4, 8, 8), torch.zeros(6, dtype=torch.long)
    text = diffusion.encode_prompts(pipe, ["A cup."])[0].expand(6, -1, -1)
    with torch.no_grad():
        step = flops.count(lambda: pipe.unet(latents, t, text))
    assert two - one == step
    loss_at = lambda model, step: (model(torch.ones(8, 4)).square().mean(), {})  # noqa: E731
    trained = spent(lambda: list(train.loop(torch.nn.Linear(4, 4), [loss_at], train.Plan(steps=5, lr=0.1))))
    assert trained == 5 * 2 * (2 * 8 * 4 * 4)  # no gradient of the input is taken


def spent(work):
    before = flops.spent
    work()
    return flops.spent - before


def test_counting_changes_no_bit(pipe):
    unet = copy.deepcopy(pipe.unet).train().requires_grad_(True)
    inputs = (
        torch.randn(6, 4, 8, 8),
        torch.arange(6) * 100,
        torch.randn(6, 24, unet.config.cross_attention_dim),
    )

    def gradients():
        unet.zero_grad()
        unet(*inputs).sample.square().mean().backward()
        return [p.grad.clone() for p in unet.parameters()]

    plain, counted = gradients(), []
    assert flops.count(lambda: counted.extend(gradients()))
    assert all(p.equal(q) for p, q in zip(plain, counted, strict=True))
