"""LoRA: what is trained, what it starts as, and that a merged model is as the adapted one was."""

import pytest
import torch
from torch import nn

from components.conditioning.text_tokens import TextTokens
from components.diffusion.config import DiTConfig
from components.diffusion.dit import DiT
from components.training.config import LoraConfig, OptimizerConfig
from components.training.lora import add_adapters, merge_adapters
from components.training.optimizers import build_optimizers

SIZES = DiTConfig(image_size=8, patch=4, width=16, depth=2, heads=2, vocabulary=20)
LAYERS = ("qkv", "attention_out", "mlp_in", "mlp_out")
LORA = LoraConfig(rank=3, alpha=6)


def trained() -> DiT:
    torch.manual_seed(0)
    network = DiT(SIZES)
    for weights in network.parameters():
        nn.init.normal_(weights, std=0.3)
    return network


def output(network: DiT) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    ids = torch.tensor([[1, 5, 6], [1, 7, 8]])
    x_t = torch.randn(2, 3, 8, 8, generator=generator)
    return network(x_t, torch.tensor([0.2, 0.9]), TextTokens(ids, ids > 0))


@torch.no_grad()
def test_it_begins_as_the_model_that_it_adapts_and_the_seed_decides_the_rest():
    networks = [trained() for _ in range(3)]
    before = output(networks[0])
    for network, seed in zip(networks, (0, 0, 1), strict=True):
        add_adapters(network, LORA, seed)
        assert torch.equal(output(network), before)
    first, again, other = (network.blocks[0].qkv.lora_A["default"].weight for network in networks)
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_only_the_thin_matrices_learn_and_merged_they_are_weights_of_low_rank():
    network, start = trained(), trained().state_dict()
    add_adapters(network, LORA, seed=0)
    trainable = {name: p.numel() for name, p in network.named_parameters() if p.requires_grad}
    shapes = {"qkv": 48 + 16, "attention_out": 16 + 16, "mlp_in": 64 + 16, "mlp_out": 16 + 64}
    assert sum(trainable.values()) == 2 * 3 * sum(shapes.values())
    (adamw,) = build_optimizers(network, OptimizerConfig(learning_rate=0.05))
    assert isinstance(adamw, torch.optim.AdamW)
    for _ in range(3):
        adamw.zero_grad()
        output(network).square().mean().backward()
        adamw.step()
    adapted = output(network)
    a, b = (getattr(network.blocks[1].mlp_in, f"lora_{of}")["default"].weight for of in "AB")
    product = (2 * b @ a).detach()  # alpha / rank = 2

    merge_adapters(network)
    assert type(network.blocks[1].mlp_in) is nn.Linear
    torch.testing.assert_close(output(network), adapted, rtol=1e-4, atol=1e-5)
    learned = network.state_dict()
    assert learned.keys() == start.keys()
    for name, weights in learned.items():
        change = weights - start[name]
        if name.startswith("blocks.") and name.split(".")[2] in LAYERS:
            assert torch.linalg.matrix_rank(change, rtol=1e-3) == 3
        else:
            assert not change.any(), name
    torch.testing.assert_close(learned["blocks.1.mlp_in.weight"] - start["blocks.1.mlp_in.weight"], product)


@pytest.mark.parametrize("settings", [{"rank": 0}, {"alpha": 0}, {"dropout": 0.1}])
def test_settings_that_are_none_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        LoraConfig(**settings)
