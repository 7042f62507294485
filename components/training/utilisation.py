"""How much of a device's arithmetic a training uses: model FLOPs utilisation (Chowdhery 2022, Appendix B).

The peak is what one large matrix product reaches on the device, and not what its maker prints: so it is known
of every device, and a share of 1 is what a step that were nothing but large products would have.
"""

import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from components.precision import Resolved

CPU_SIDE, SIDE = 1024, 8192  # of square matrices that are large enough for the peak
PRODUCTS = 8  # of which the fastest counts: whatever else runs only slows them


def count_flops(step: Callable[[], object], *, compiled: bool = False) -> int:
    """Floating-point operations of the matrix products, convolutions and attention in `step`, run once.

    What it computes again in its backward pass is counted again. compiled: whether it runs torch.compile's
    code, in which nothing can be counted: it runs eagerly here.
    """
    eager = torch.compiler.set_stance("force_eager") if compiled else nullcontext()
    with eager, FlopCounterMode(display=False) as counter:
        step()
    return int(counter.get_total_flops())


@cache
def peak_flops(device: torch.device, precision: Resolved, threads: int) -> float:
    """Floating-point operations a second of a large matrix product, on so many threads of a CPU."""
    side = CPU_SIDE if device.type == "cpu" else SIDE
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(PRODUCTS):
        started = time.perf_counter()
        _wait(left @ right)
        seconds.append(time.perf_counter() - started)
    return float(2 * side**3 / min(seconds))


def _wait(product: torch.Tensor) -> None:
    """Until it is computed."""
    if product.device.type != "cpu":
        torch.accelerator.synchronize(product.device)
