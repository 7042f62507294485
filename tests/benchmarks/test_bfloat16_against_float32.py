"""What `precision: auto` chooses is the faster of the two here."""

from time import perf_counter

import torch

from components.precision import computes_in_bf16

CPU = torch.device("cpu")


def test_auto_is_the_faster_of_the_two_on_this_machine():
    """The reason for `auto`: by a factor, so that noise cannot turn it."""

    def seconds(dtype):
        a, b = torch.ones(512, 512, dtype=dtype), torch.ones(512, 512, dtype=dtype)
        times = []
        for _ in range(9):
            start = perf_counter()
            for _ in range(10):
                a @ b
            times.append(perf_counter() - start)
        return sorted(times)[4]

    ratio = seconds(torch.bfloat16) / seconds(torch.float32)
    assert ratio < 1.2 if computes_in_bf16(CPU) else ratio > 0.6
