"""Heads: small models on the judge's image embeddings, as LAION's aesthetic, NSFW and watermark scores are.

A head is a file, and its config says what an image must score. It sees the unit vectors of
`Judge.image_features`, so it fits the judge that it was trained on, and no other.

    .safetensors   a linear layer: a weight (1, D) or (D,), and a bias if it has one, under any prefix
    .onnx          any network of one input (N, D) and one output (N,) or (N, 1)
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from components.config_field import added_field
from components.corpus.rejection import Rejection
from components.corpus.schemas import Reason
from components.durable import sha256_file
from components.errors import REASON_LENGTH, InputError, one_line

Floats = npt.NDArray[np.float32]
REASONS = {reason.value: reason for reason in (Reason.AESTHETIC, Reason.NSFW, Reason.WATERMARK)}


class HeadConfig(BaseModel):
    """One head: its file, and which of its scores an image may have."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    path: str = Field(min_length=1, description="a .safetensors or .onnx file")
    sha256: str | None = added_field(
        None, pattern=r"^[0-9a-f]{64}$", description="of the file, which then may be no other"
    )
    activation: Literal["none", "sigmoid"] = Field(
        "none", description="of a .safetensors head: sigmoid makes its logit a probability"
    )
    at_least: float | None = Field(None, description="a lower score rejects the record")
    at_most: float | None = Field(None, description="a higher score rejects the record")

    @model_validator(mode="after")
    def _is_an_interval(self) -> "HeadConfig":
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise InputError(
                f"at_least is {self.at_least:g} and at_most {self.at_most:g}: nothing is between"
            )
        return self

    def pinned(self) -> "HeadConfig":
        """The same with its file's absolute path and sha256, so that another content is another config."""
        path = Path(self.path).expanduser().absolute()
        sha256 = self.sha256 or (sha256_file(path) if path.is_file() else None)
        return self.model_copy(update={"path": str(path), "sha256": sha256})

    def rejection(self, name: str, score: float) -> Rejection | None:
        """Why an image of this score does not go on. name: of the head."""
        reason = REASONS.get(name, Reason.HEAD_SCORE)
        if not np.isfinite(score):
            return Rejection(reason, f"{name} is {score}: no score")
        if self.at_least is not None and score < self.at_least:
            return Rejection(reason, f"{name} {score:.3f}, at least {self.at_least:g} wanted")
        if self.at_most is not None and score > self.at_most:
            return Rejection(reason, f"{name} {score:.3f}, at most {self.at_most:g} allowed")
        return None


class Head(Protocol):
    """Scores of images from their embeddings: (N, D) -> (N,)."""

    def __call__(self, embeddings: Floats) -> Floats: ...


def load_heads(configs: Mapping[str, HeadConfig]) -> dict[str, Head]:
    """The heads of these configs, by name. Raises InputError where a file is none."""
    return {name: load_head(name, config) for name, config in configs.items()}


def load_head(name: str, config: HeadConfig) -> Head:
    """One head. name: of its config, for errors. Raises InputError, one line that names it and its file."""
    path = Path(config.path).expanduser()
    where = f"head '{name}' ({path})"
    kinds = {".safetensors": _linear, ".onnx": _onnx}
    if path.suffix not in kinds:
        raise InputError(f"{where}: its file must end in .safetensors or .onnx")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{where}: {error.strerror or error}; give a file that is there") from None
    digest = hashlib.sha256(content).hexdigest()
    if config.sha256 not in (None, digest):
        raise InputError(f"{where}: its sha256 is {digest}, and the config says {config.sha256}")
    return kinds[path.suffix](content, config, where)


@dataclass(frozen=True)
class LinearHead:
    """weight: (D,). sigmoid: of the sum."""

    weight: Floats
    bias: float
    sigmoid: bool
    where: str

    def __call__(self, embeddings: Floats) -> Floats:
        _check_width(self.where, len(self.weight), embeddings)
        logits = np.einsum("nd,d->n", embeddings, self.weight) + np.float32(self.bias)
        return 1 / (1 + np.exp(-logits)) if self.sigmoid else logits


def _linear(content: bytes, config: HeadConfig, where: str) -> Head:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = {name: tensor.float().numpy().squeeze() for name, tensor in load(content).items()}
    except SafetensorError as error:
        raise InputError(f"{where}: no safetensors file ({one_line(error, REASON_LENGTH)})") from None
    weights = [tensor for name, tensor in tensors.items() if name.rpartition(".")[2] == "weight"]
    biases = [tensor for name, tensor in tensors.items() if name.rpartition(".")[2] == "bias"]
    if len(weights) != 1 or weights[0].ndim != 1 or len(biases) > 1 or any(bias.size != 1 for bias in biases):
        shapes = ", ".join(f"{name} {tensor.shape}" for name, tensor in sorted(tensors.items()))
        raise InputError(
            f"{where}: wants one weight (1, D) and at most one bias (1,), it has {shapes or 'nothing'};"
            " export another network as .onnx"
        )
    bias = float(biases[0]) if biases else 0.0
    return LinearHead(weights[0].astype(np.float32), bias, config.activation == "sigmoid", where)


def _onnx(content: bytes, config: HeadConfig, where: str) -> Head:
    if config.activation != "none":
        raise InputError(f"{where}: activation is of .safetensors heads; an .onnx network has its own")
    try:
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as errors
    except ImportError:
        raise InputError(
            f"{where}: an .onnx head needs onnxruntime: pip install 'straightshot[onnx]'"
        ) from None

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # workers share the cores, and a score's last bits depend on it
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except (errors.Fail, errors.InvalidArgument, errors.InvalidGraph, errors.InvalidProtobuf) as error:
        raise InputError(f"{where}: no ONNX network ({one_line(error, REASON_LENGTH)})") from None
    (network_input, *others), width = session.get_inputs(), session.get_inputs()[0].shape[-1]
    if others:
        raise InputError(f"{where}: the network has {1 + len(others)} inputs; one (N, D) is wanted")

    def score(embeddings: Floats) -> Floats:
        if isinstance(width, int):
            _check_width(where, width, embeddings)
        scores = np.asarray(session.run(None, {network_input.name: embeddings})[0], np.float32)
        if scores.size != len(embeddings):
            raise InputError(
                f"{where}: it gives {scores.shape} for {len(embeddings)} images; one each is wanted"
            )
        return scores.reshape(len(embeddings))

    return score


def _check_width(where: str, width: int, embeddings: Floats) -> None:
    if embeddings.shape[1] != width:
        raise InputError(
            f"{where}: it is for embeddings of {width} values, and the judge's have {embeddings.shape[1]};"
            " take a head that was trained on this judge"
        )
