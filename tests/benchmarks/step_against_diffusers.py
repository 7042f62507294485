"""What a training step of our DiT costs, beside diffusers' DiT and SD3 and its own matrix products.

    python -m tests.benchmarks.step_against_diffusers [--width 384] [--depth 6] [--compile]

All have the same width, depth, heads, batch, precision and tokens: 36 of text and 64 of image; diffusers' DiT
reads no text and has 100 of image. A step is the forward and backward pass of a mean square, in float32 or,
where the device computes in it, under bfloat16 autocast. The floor is the step's own operations at the rate
of one large matrix product. Seconds, the median of several rounds that take turns: of the CPU, on one thread,
where there is no GPU.

Measured on one core of an Intel Cascade Lake, in float32, width 384: SD3 takes 1.11 times as long, DiT 1.02
times; ours takes 1.53 times the floor. At the demo's width of 128: 1.12, .96 and 2.70.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from components.conditioning.text_tokens import TextTokens
from components.diffusion.config import DiTConfig
from components.diffusion.dit import DiT
from components.precision import autocast, resolve_precision
from components.training.utilisation import count_flops, peak_flops

ROUNDS = 5
CHANNELS, PATCH, HEAD_DIMS = 4, 2, 64
TEXT_TOKENS, IMAGE_SIDE, LARGE_SIDE = 36, 8, 10  # 36 + 8² = 10²
FEATURES = 64  # of a text token, as it arrives

Step = Callable[[], Tensor]
Inputs = dict[str, object]


@dataclass(frozen=True)
class StepCosts:
    """Seconds of a step of each, and the least that ours could take."""

    ours: float
    dit: float
    sd3: float
    floor: float


def measure(width: int, depth: int, batch: int = 8, *, compiled: bool = False) -> StepCosts:
    """The costs at one size."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precision = resolve_precision("auto", device)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    try:
        steps = [
            _training_step(network.to(device), inputs, device, compiled)
            for network, inputs in (
                _ours(width, depth, batch),
                _dit(width, depth, batch),
                _sd3(width, depth, batch),
            )
        ]
        flops = count_flops(steps[0], compiled=compiled)
        rounds = [[_seconds(step, device) for step in steps] for _ in range(ROUNDS + 1)][1:]
        floor = flops / peak_flops(device, precision, 1)
    finally:
        torch.set_num_threads(threads)
    ours, dit, sd3 = (statistics.median(times) for times in zip(*rounds, strict=True))
    return StepCosts(ours, dit, sd3, floor)


def _training_step(network: nn.Module, inputs: Inputs, device: torch.device, compiled: bool) -> Step:
    network.train()
    if compiled:
        network.compile()
    moved = {name: value.to(device) if hasattr(value, "to") else value for name, value in inputs.items()}
    precision = resolve_precision("auto", device)

    def step() -> Tensor:
        network.zero_grad(set_to_none=True)
        with autocast(precision, device):
            output = network(**moved)
            loss = (output if isinstance(output, Tensor) else output[0]).float().square().mean()
        loss.backward()
        return loss.detach()

    return step


def _ours(width: int, depth: int, batch: int) -> tuple[nn.Module, Inputs]:
    config = DiTConfig(
        image_size=IMAGE_SIDE * PATCH, channels=CHANNELS, patch=PATCH, width=width, depth=depth,
        heads=width // HEAD_DIMS, text_length=TEXT_TOKENS, text_features=FEATURES,
    )  # fmt: skip
    mask = torch.ones(batch, TEXT_TOKENS, dtype=torch.bool)
    text = TextTokens(torch.randn(batch, TEXT_TOKENS, FEATURES), mask)
    return DiT(config), {"x_t": _image(batch, IMAGE_SIDE), "t": torch.rand(batch), "text": text}


def _dit(width: int, depth: int, batch: int) -> tuple[nn.Module, Inputs]:
    from diffusers import DiTTransformer2DModel

    network = DiTTransformer2DModel(
        num_attention_heads=width // HEAD_DIMS, attention_head_dim=HEAD_DIMS, in_channels=CHANNELS,
        num_layers=depth, sample_size=LARGE_SIDE * PATCH, patch_size=PATCH,
    )  # fmt: skip
    classes = torch.zeros(batch, dtype=torch.long)
    return network, {
        "hidden_states": _image(batch, LARGE_SIDE),
        "timestep": torch.zeros(batch, dtype=torch.long),
        "class_labels": classes,
        "return_dict": False,
    }


def _sd3(width: int, depth: int, batch: int) -> tuple[nn.Module, Inputs]:
    from diffusers import SD3Transformer2DModel

    network = SD3Transformer2DModel(
        sample_size=IMAGE_SIDE * PATCH, patch_size=PATCH, in_channels=CHANNELS, out_channels=CHANNELS,
        num_layers=depth, attention_head_dim=HEAD_DIMS, num_attention_heads=width // HEAD_DIMS,
        joint_attention_dim=FEATURES, caption_projection_dim=width, pooled_projection_dim=FEATURES,
        pos_embed_max_size=IMAGE_SIDE, qk_norm="rms_norm",
    )  # fmt: skip
    return network, {
        "hidden_states": _image(batch, IMAGE_SIDE),
        "encoder_hidden_states": torch.randn(batch, TEXT_TOKENS, FEATURES),
        "pooled_projections": torch.randn(batch, FEATURES),
        "timestep": torch.zeros(batch),
        "return_dict": False,
    }


def _image(batch: int, side: int) -> Tensor:
    return torch.randn(batch, CHANNELS, side * PATCH, side * PATCH)


def _seconds(step: Step, device: torch.device) -> float:
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    started = clock()
    step().item()  # the host waits for the device
    return clock() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--width", type=int, default=384, help=f"a multiple of {HEAD_DIMS}")
    parser.add_argument("--depth", type=int, default=6)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--compile", action="store_true", help="all three, compiled")
    options = parser.parse_args()
    costs = measure(options.width, options.depth, options.batch, compiled=options.compile)
    sys.stdout.write(
        f"{1000 * costs.ours:.0f} ms a step; diffusers' SD3 {costs.sd3 / costs.ours:.2f} times as long,"
        f" its DiT {costs.dit / costs.ours:.2f} times; the floor {costs.floor / costs.ours:.2f} times\n"
    )


if __name__ == "__main__":
    main()
