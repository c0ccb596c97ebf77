"""Floating-point operations of a piece of work, counted: where clocks are noisy, they say what it costs."""

import math
from weakref import WeakKeyDictionary

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

spent = 0.0  # FLOP of this process so far, of all work that went through `spend`; NaN if some was not counted
_costs = WeakKeyDictionary()
_formulas = dict(flop_registry)
for way in ("", "_backward"):  # it would count attention on processors as nothing
    known = _formulas[getattr(torch.ops.aten, f"_scaled_dot_product_flash_attention{way}")]
    _formulas[getattr(torch.ops.aten, f"_scaled_dot_product_flash_attention_for_cpu{way}")] = known


class _Counter(TorchDispatchMode):
    total = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        formula = _formulas.get(operation._overloadpacket)
        if formula is None and torch.is_inference_mode_enabled():  # where nothing else takes them apart
            with self:
                out = operation.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        out = operation(*args, **kwargs)
        if formula:
            self.total += formula(*args, **kwargs, out_val=out)
        return out


def count(work):
    """FLOP of `work()`: a multiplication and an addition count as two.

    The work itself comes out the same to the bit; PyTorch's own counter takes operations apart in training,
    too, which changes the last bits of a gradient.
    """
    with _Counter() as counter:
        work()
    return counter.total


def spend(work, model, *key):
    """The value of `work()`, which calls `model`, and whose FLOP join `spent`.

    As counting takes time, they are counted once for a model and `key` and taken to be the same from then
    on. What is spent within the work counts as itself. Several processes and compiled models are not counted.
    """
    global spent
    before, values, costs = spent, [], _costs.setdefault(model, {})
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    if key not in costs and (distributed or getattr(model, "_compiled_call_impl", None)):
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
