"""LoRA (Hu 2021): a network's blocks learn by products of two thin matrices beside their own, which stand.

The adapters are peft's. They are in the network while it trains, and merged into its weights at the end: a
model that was adapted is a model like any other.
"""

from torch import nn

from components.randomness import seeded_weights
from components.training.config import LoraConfig

BLOCKS = ("blocks", "transformer_blocks")  # of a DiT, and of diffusers' transformers


def add_adapters(network: nn.Module, config: LoraConfig, seed: int) -> None:
    """Beside every linear layer of the blocks, in place; nothing else is trained from now on.

    The network computes what it did: the second matrix of each adapter is zero. The first is a function of
    the seed.
    """
    from peft import LoraConfig as Adapter
    from peft import inject_adapter_in_model

    layers = [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and any(part in BLOCKS for part in name.split("."))
    ]
    adapter = Adapter(r=config.rank, lora_alpha=config.alpha, target_modules=layers)
    with seeded_weights(seed, "adapters"):
        inject_adapter_in_model(adapter, network)


def merge_adapters(network: nn.Module) -> None:
    """Add each adapter to the weights beside it and take it away, in place."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    adapted = [(name, m) for name, m in network.named_modules() if isinstance(m, BaseTunerLayer)]
    for name, module in adapted:
        module.merge()
        network.set_submodule(name, module.get_base_layer())
    del network.peft_config
