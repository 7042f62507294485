"""What the configs and the outputs of train and distill have in common. Without torch."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from components.config_field import added_field
from components.shards.blend import Blend
from components.training.config import LoraConfig, TrainingConfig
from pipelines.stage import StageConfig

CURVE = "curve.json"  # in the outputs, beside the model


class LearningConfig(TrainingConfig, StageConfig):
    """The fields that train and distill share."""

    NOT_IN_FINGERPRINT: ClassVar[Mapping[str, Any]] = {
        "workers": True,
        "accumulation": True,
        "activation_checkpointing": True,
        "background_checkpoints": True,
        "cache_mb": True,
        "keep_checkpoints": True,
        "shard_weights": True,
    }

    seed: int = Field(0, ge=0)
    workers: int = Field(
        1,
        ge=1,
        description="processes that share each batch; on GPUs, one GPU each. May change when a run goes on:"
        " 1, 2, 4 and 8 see the same samples and noise, and end with the same weights but for rounding",
    )
    accumulation: int = Field(
        1,
        ge=1,
        description="parts of each process's share of a batch that go through the network one by one, to take"
        " less memory; the weights are the same but for rounding. May change when a run goes on",
    )
    activation_checkpointing: bool = Field(
        False,
        description="keep only each block's input for the backward pass, which computes the rest again: the"
        " same weights to the bit, less memory, more time. May change when a run goes on",
    )
    shard_weights: bool = Field(
        False,
        description="each worker keeps a share of the weights, of their gradients and averages and of the"
        " optimizer's state (FSDP2), and gathers the rest block by block: less memory, more communication;"
        " the weights are the same but for rounding. May change when a run goes on",
    )
    lora: LoraConfig | None = added_field(
        None,
        description="train thin matrices beside the blocks of the model that it starts from, and no other",
    )
    keep_checkpoints: int = Field(
        1, ge=1, description="the newest that stay while it trains; a damaged one is passed over for the next"
    )
    background_checkpoints: bool = Field(
        False, description="write them while the training goes on, from a copy of the state in memory"
    )
    blend: Blend = Blend()
    cache_mb: int = Field(1024, ge=0, description="decoded images kept in memory by each process, MiB")

    @model_validator(mode="after")
    def _shares_are_even(self) -> Self:
        if self.batch_size % (self.workers * self.accumulation):
            parts = f" in {self.accumulation} parts each" if self.accumulation > 1 else ""
            raise ValueError(
                f"batch_size {self.batch_size} cannot be shared by {self.workers} workers{parts} evenly"
            )
        return self
