"""Where and how a stage's models run: device, dtype, batch, and each one's share of a worker.

    filter.judge, recaption.judge, recaption.captioner, evaluate.judge: a ModelRuntime each
    shard.encoders: a Placement

What comes out depends on device, dtype and batch size to the last bits; the shares only place the work.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from components.captioning.config import NONE, SamplingConfig
from pipelines.errors import ConfigError
from pipelines.execution.resources import Resources
from pipelines.stage import Input

if TYPE_CHECKING:
    from components.captioning.captioner import Captioner
    from components.judge.judge import Judge

# Of NOT_IN_FINGERPRINT: where a model is placed changes nothing about what it makes.
PLACEMENT = {"gpus_per_worker": True, "cpus_per_worker": True}

Device = Literal["auto", "cpu", "cuda"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]


class Placement(BaseModel):
    """Where a model of a stage runs."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    device: Device = Field("auto", description="'auto' takes a GPU where the worker sees one")
    gpus_per_worker: float = Field(
        1.0, ge=0, description="share of a GPU that it takes in each worker (0.25: four workers share one)"
    )
    cpus_per_worker: float = Field(
        0.5, gt=0, description="CPUs that a worker reserves for it; below one, so that reading finds a CPU"
    )

    def resolve_device(self, setting: str) -> str:
        """cpu or cuda, in this process. setting: the config's name of this section, for errors.

        Raises ConfigError where a GPU is asked for and there is none.
        """
        import torch

        gpu = torch.cuda.is_available()
        if self.device == "cuda" and not gpu:
            raise ConfigError(
                f"{setting}.device is cuda, and the worker sees no GPU; set it to auto or cpu, or run on a"
                " machine with one"
            )
        return ("cuda" if gpu else "cpu") if self.device == "auto" else self.device


class ModelRuntime(Placement):
    """How one model of a stage runs."""

    dtype: Dtype = Field(
        "auto", description="of weights and arithmetic; 'auto': bfloat16 on a GPU, else float32"
    )
    batch_size: int = Field(64, ge=1, description="images or texts that go through the model together")

    def resolve(self, setting: str) -> "ResolvedRuntime":
        """Device and dtype in this process; see resolve_device."""
        device = self.resolve_device(setting)
        automatic = "bfloat16" if device == "cuda" else "float32"
        return ResolvedRuntime(device, automatic if self.dtype == "auto" else self.dtype)


def worker_resources(gpus: float, models: Mapping[str, Placement]) -> Resources:
    """What a worker asks for that holds all of `models`, by their settings' names.

    gpus: how many the cluster has. The models of one worker run in turn, so it needs the CPUs of the most
    demanding one, but the GPU memory of all: their shares add up, above one rounded up as Ray wants it.
    """
    on_gpu = {
        setting: model
        for setting, model in models.items()
        if model.device == "cuda" or (model.device == "auto" and gpus)
    }
    settings = [f"{setting}.gpus_per_worker" for setting in on_gpu]
    settings = settings or [f"{setting}.cpus_per_worker" for setting in models]
    forced = [f"{setting}.device=cuda" for setting, model in models.items() if model.device == "cuda"]
    share = sum(model.gpus_per_worker for model in on_gpu.values())
    return Resources(
        cpus=max(model.cpus_per_worker for model in models.values()),
        gpus=math.ceil(share) if share > 1 else share,
        setting=" and ".join([*forced, *settings]),
    )


# A judge scores in float32 everywhere, four workers to a GPU. A captioner takes bfloat16 there; with a
# judge's share beside it, a worker takes a whole GPU.
JUDGE_RUNTIME = ModelRuntime(dtype="float32", batch_size=64, gpus_per_worker=0.25)
CAPTIONER_RUNTIME = ModelRuntime(batch_size=128, gpus_per_worker=0.75)


@dataclass(frozen=True)
class ResolvedRuntime:
    """device: cpu or cuda. dtype: a name in torch."""

    device: str
    dtype: str


def judge_name(annotators: Input) -> str:
    """The judge that the annotators stage fitted or pinned, as open_clip names it."""
    return f"local-dir:{annotators.path / 'judge'}"


def captioner_folder(annotators: Input) -> str:
    """Where the captioner lies that the annotators stage fitted or pinned. Raises ConfigError without one."""
    if annotators.receipt is not None and annotators.receipt.config.get("captioner") == NONE:
        raise ConfigError(
            "annotators.captioner is none, and a captioner is needed here: name one, or for recaption alone"
            " set recaption.server"
        )
    return str(annotators.path / "captioner")


def load_judge(name: str, runtime: ModelRuntime, setting: str) -> "Judge":
    """The judge of that name, in this process. setting: such as "filter.judge", for errors."""
    from components.judge.judge import Judge

    resolved = runtime.resolve(setting)
    return Judge.load(name, device=resolved.device, dtype=resolved.dtype, batch_size=runtime.batch_size)


def load_captioner(
    name: str, runtime: ModelRuntime, setting: str, *, sampling: SamplingConfig
) -> "Captioner":
    """The captioner in that folder, in this process. setting: such as "recaption.captioner", for errors."""
    from components.captioning.captioner import Captioner

    resolved = runtime.resolve(setting)
    return Captioner.load(
        name,
        device=resolved.device,
        dtype=resolved.dtype,
        batch_size=runtime.batch_size,
        sampling=sampling,
    )
