"""The counter: matrix products, and attention, which PyTorch's own leaves out on processors."""

import torch
import torch.nn.functional as F

from rlhf_nb import flops


def test_products_and_attention_are_counted():
    a, b = torch.randn(3, 4), torch.randn(4, 5)
    assert flops.count(lambda: a @ b) == 2 * 3 * 4 * 5
    query, key = torch.randn(2, 4, 64, 8), torch.randn(2, 4, 20, 8)
    scores_and_values = 2 * (2 * 2 * 4 * 64 * 20 * 8)
    assert flops.count(lambda: F.scaled_dot_product_attention(query, key, key)) == scores_and_values
