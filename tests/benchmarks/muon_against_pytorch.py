"""What a step of our Muon costs, as a ratio to PyTorch's on the same matrices.

    python -m tests.benchmarks.muon_against_pytorch [--width 128] [--depth 5]

The matrices are those of the demo's DiT. PyTorch's Muon takes them one by one, in bfloat16. CPU seconds, the
median of several rounds that take turns, on one thread.

Measured on one core of an Intel Cascade Lake, which has no instructions for bfloat16: .23 to .27.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import torch

from components.training.muon import Muon

ROUNDS = 7


def measure(width: int, depth: int) -> tuple[float, float]:
    """CPU seconds of a step: ours, PyTorch's."""
    ours = Muon(_matrices(width, depth), 1e-9)
    peer = torch.optim.Muon(_matrices(width, depth), 1e-9, weight_decay=0.0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rounds = [(_cpu_seconds(ours.step), _cpu_seconds(peer.step)) for _ in range(ROUNDS)]
    finally:
        torch.set_num_threads(threads)
    mine, theirs = zip(*rounds, strict=True)
    return statistics.median(mine), statistics.median(theirs)


def _matrices(width: int, depth: int) -> list[torch.nn.Parameter]:
    shapes = ((3 * width, width), (width, width), (4 * width, width), (width, 4 * width)) * depth
    generator = torch.Generator().manual_seed(0)
    matrices = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    for matrix in matrices:
        matrix.grad = torch.randn(matrix.shape, generator=generator)
    return matrices


def _cpu_seconds(step: Callable[[], object]) -> float:
    started = time.process_time()
    step()
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--depth", type=int, default=5)
    options = parser.parse_args()
    ours, peer = measure(options.width, options.depth)
    sys.stdout.write(f"{1000 * ours:.1f} ms, PyTorch's {1000 * peer:.1f} ms, ratio {ours / peer:.2f}\n")


if __name__ == "__main__":
    main()
