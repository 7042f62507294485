"""bfloat16 is chosen where the processor multiplies in it."""

import pytest
import torch

from components.precision import autocast, computes_in_bf16, resolve_precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("capabilities", "computes"),
    [
        ({"avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, False),  # Cascade Lake
        ({"avx512_f": True, "avx512_bf16": True, "amx_bf16": False}, True),  # Zen 4
        ({"avx512_bf16": True, "amx_bf16": True}, True),  # Sapphire Rapids
        ({"neon": True, "bf16": True}, True),  # an ARM of version 8.6
        ({}, False),
    ],
)
def test_a_cpu_computes_in_bf16_where_it_has_the_instructions(monkeypatch, capabilities, computes):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert computes_in_bf16(CPU) == computes
    assert resolve_precision("auto", CPU) == ("bf16" if computes else "no")


def test_what_is_asked_for_is_done():
    assert [resolve_precision(precision, CPU) for precision in ("bf16", "no")] == ["bf16", "no"]
    a, b = torch.ones(2, 2), torch.ones(2, 2)
    with autocast("bf16", CPU):
        assert (a @ b).dtype == torch.bfloat16
    with autocast("no", CPU):
        assert (a @ b).dtype == torch.float32
