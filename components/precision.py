"""bfloat16 arithmetic where a device has it. Without torch until it is asked."""

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

Precision = Literal["auto", "bf16", "no"]  # as configs name it
Resolved = Literal["bf16", "no"]
PRECISION_IS = "bf16: autocast; no: float32; auto: bf16 where the device computes in it"

# What torch.cpu.get_capabilities calls the instructions that multiply in bfloat16, on x86 and on ARM.
CPU_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")


def resolve_precision(precision: Precision, device: "torch.device") -> Resolved:
    """`auto` as what suits the device: many CPUs emulate bfloat16 at a fifth of float32's speed."""
    if precision == "auto":
        return "bf16" if computes_in_bf16(device) else "no"
    return precision


def computes_in_bf16(device: "torch.device") -> bool:
    """Whether the device has instructions for bfloat16."""
    import torch

    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return any(bool(capabilities.get(name)) for name in CPU_INSTRUCTIONS)
    return False


def autocast(precision: Resolved, device: "torch.device") -> "torch.autocast":
    """A context in which networks compute in this precision; their weights stay as they are."""
    import torch

    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
