"""Floating-point operations of a piece of work, counted: where clocks are noisy, they say what it costs."""

import math
from functools import cache
from weakref import WeakKeyDictionary

spent = 0.0  # FLOP of this process so far, of all work that went through `spend`; NaN if some was not counted
_costs = WeakKeyDictionary()


@cache
def _on_processors():
    """Formulas for attention on processors, which PyTorch's counter lacks: it would count it as nothing."""
    import torch
    from torch.utils.flop_counter import sdpa_backward_flop_count, sdpa_flop_count

    aten = torch.ops.aten
    return {
        aten._scaled_dot_product_flash_attention_for_cpu: (
            lambda query, key, value, *_, **__: sdpa_flop_count(query, key, value)
        ),
        aten._scaled_dot_product_flash_attention_for_cpu_backward: (
            lambda grad, query, key, value, *_, **__: sdpa_backward_flop_count(grad, query, key, value)
        ),
    }


def count(work):
    """FLOP of `work()`: a multiplication and an addition count as two."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False, custom_mapping=_on_processors()) as counter:
        work()
    return counter.get_total_flops()


def spend(work, model, *key):
    """The value of `work()`, which calls `model`, and whose FLOP join `spent`.

    As counting takes time, they are counted once for a model and `key` and taken to be the same from then
    on. What is spent within the work counts as itself. Several processes and compiled models are not counted.
    """
    global spent
    before, values, costs = spent, [], _costs.setdefault(model, {})
    if key not in costs and not _countable(model):
        costs[key] = math.nan
    if key in costs:
        values.append(work())
    else:
        costs[key] = count(lambda: values.append(work())) - (spent - before)
    spent += costs[key]
    return values[0]


def since(before):
    """10^12 operations since `spent` was `before`, or None where some were not counted."""
    return round((spent - before) / 1e12, 3) if math.isfinite(spent - before) else None


def _countable(model):
    import torch

    alone = not (torch.distributed.is_available() and torch.distributed.is_initialized())
    return alone and getattr(model, "_compiled_call_impl", None) is None
