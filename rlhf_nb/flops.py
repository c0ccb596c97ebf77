"""Floating-point operations of a piece of work, counted: where clocks are noisy, they say what it costs."""

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

# PyTorch's counter has no formula for attention on processors and counts it as nothing.
_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_ON_PROCESSORS = {
    _ATTENTION: lambda query, key, value, *_, **__: sdpa_flop_count(query, key, value),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        lambda grad, query, key, value, *_, **__: sdpa_backward_flop_count(grad, query, key, value)
    ),
}


def count(work):
    """FLOP of `work()`: a multiplication and an addition count as two."""
    with FlopCounterMode(display=False, custom_mapping=_ON_PROCESSORS) as counter:
        work()
    return counter.get_total_flops()
