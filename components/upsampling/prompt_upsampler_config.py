"""The settings of the prompt upsampler, without torch."""

from pydantic import Field

from components.captioning.config import FIT
from components.training.config import OptimizerConfig, TrainingConfig
from components.upsampling.upsampler_card import CheckName, UpsamplerUse


class PromptUpsamplerConfig(UpsamplerUse):
    """Where the upsampler of prompts comes from and what is checked; how one is fitted."""

    model: str = Field(FIT, description="'fit', 'none', or the id or folder of a causal language model")
    revision: str | None = Field(None, description="of a pretrained one")
    checks: tuple[CheckName, ...] = Field(
        ("words", "similarity"), description="of each caption against its prompt, in this order"
    )
    min_similarity: float | None = Field(
        None, ge=-1, le=1, description="cosine by the judge; null: what 98% of the short captions reach"
    )
    keep_complete: bool = Field(True, description="leave a prompt that says all already as it is")
    width: int = Field(96, gt=0, description="features of a token")
    depth: int = Field(2, gt=0, description="layers: short convolutions and attention in turn")
    heads: int = Field(4, gt=0)
    vocabulary: int = Field(1000, ge=300, description="tokens at most")
    training: TrainingConfig = TrainingConfig(
        images=28_000,  # captions, here
        batch_size=16,
        optimizer=OptimizerConfig(
            learning_rate=5e-3, muon_learning_rate=2e-2, warmup_images=800, decay_fraction=0.7
        ),
        ema_halflife_images=1_000,
        precision="no",  # on a CPU a network of this size gains nothing by bf16
    )
