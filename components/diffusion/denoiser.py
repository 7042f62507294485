"""The denoiser: a network, the process it was trained on and what it predicts, behind one interface.

`x_0`, `velocity`, `eps` and `score` at (x_t, t, text), whatever the network predicts. Losses, samplers and
the Generator know the network only through it. A `ConditionedDenoiser` has its text (and guidance) in it, so
that a sampler needs (x_t, t) alone.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from components.conditioning.text import TextTokens
from components.diffusion.config import DiffusionConfig, Prediction, Quantity
from components.diffusion.process import Process, make_process

Network = Callable[[Tensor, Tensor, TextTokens], Tensor]  # (x_t, t, text) -> what it predicts, like x_t


@dataclass(frozen=True)
class Autoguide:
    """A weaker version of a network, of the same process and prediction, that guidance leads away from.

    scale: how far (Karras 2024b); see guidance.py.
    """

    network: Network
    scale: float


@dataclass(frozen=True)
class Denoiser:
    """x_t: (B, C, H, W); t: (B,); text: TextTokens of B captions. All estimates are shaped like x_t.

    autoguide: what `guided` takes beside the scale, where the network has one; no estimate here knows of it.
    """

    network: Network
    process: Process
    prediction: Prediction
    autoguide: Autoguide | None = None

    def estimate(self, quantity: Quantity, x_t: Tensor, t: Tensor, text: TextTokens) -> Tensor:
        """The network's estimate of one quantity, from one evaluation."""
        output = self.network(x_t, t, text)
        return self.process.convert(output, x_t, t, source=self.prediction, target=quantity)

    def x_0(self, x_t: Tensor, t: Tensor, text: TextTokens) -> Tensor:
        """The clean image."""
        return self.estimate("x_0", x_t, t, text)

    def velocity(self, x_t: Tensor, t: Tensor, text: TextTokens) -> Tensor:
        """d x_t / d t along the path."""
        return self.estimate("velocity", x_t, t, text)

    def eps(self, x_t: Tensor, t: Tensor, text: TextTokens) -> Tensor:
        """The noise in x_t."""
        return self.estimate("eps", x_t, t, text)

    def score(self, x_t: Tensor, t: Tensor, text: TextTokens) -> Tensor:
        """The slope of log p(x_t)."""
        return self.estimate("score", x_t, t, text)

    def with_network(self, network: Network) -> "Denoiser":
        """The same process and prediction, by another network, which has no autoguide."""
        return replace(self, network=network, autoguide=None)

    def to(self, device: torch.device) -> "Denoiser":
        """With the networks' weights, where they have any, on `device` (a module moves in place)."""
        guide = self.autoguide and replace(self.autoguide, network=_moved(self.autoguide.network, device))
        return replace(self, network=_moved(self.network, device), autoguide=guide)


def make_denoiser(network: Network, config: DiffusionConfig, autoguide: Autoguide | None = None) -> Denoiser:
    """The denoiser of a network with the config's process and prediction."""
    return Denoiser(network, make_process(config.process), config.prediction, autoguide)


def _moved(network: Network, device: torch.device) -> Network:
    return network.to(device) if isinstance(network, nn.Module) else network


class ConditionedDenoiser(ABC):
    """A denoiser of one batch of texts, as samplers take it: estimates at (x_t, t)."""

    process: Process

    @abstractmethod
    def estimate(self, quantity: Quantity, x_t: Tensor, t: Tensor) -> Tensor:
        """The estimate of one quantity at x_t (B, C, H, W) and t (B,), like x_t."""

    def x_0(self, x_t: Tensor, t: Tensor) -> Tensor:
        """The clean image."""
        return self.estimate("x_0", x_t, t)

    def velocity(self, x_t: Tensor, t: Tensor) -> Tensor:
        """d x_t / d t along the path."""
        return self.estimate("velocity", x_t, t)

    def eps(self, x_t: Tensor, t: Tensor) -> Tensor:
        """The noise in x_t."""
        return self.estimate("eps", x_t, t)

    def score(self, x_t: Tensor, t: Tensor) -> Tensor:
        """The slope of log p(x_t)."""
        return self.estimate("score", x_t, t)

    def consistency(self, x_t: Tensor, t: Tensor) -> Tensor:
        """The consistency function f(x_t, t): the end of the path through x_t (Song 2023, Section 3).

        f(x, 0) = x holds by construction, to the bit, whatever the network: f is the x_0 of its velocity
        (of rectified flow: x_t - t v). Of a network that was not distilled it is an estimate of x_0.
        """
        return self.process.x_0_from_velocity(x_t, self.velocity(x_t, t), t)


class _Conditioned(ConditionedDenoiser):
    def __init__(self, denoiser: Denoiser, text: TextTokens) -> None:
        self.process, self.denoiser, self.text = denoiser.process, denoiser, text

    def estimate(self, quantity: Quantity, x_t: Tensor, t: Tensor) -> Tensor:
        return self.denoiser.estimate(quantity, x_t, t, self.text)


def conditioned(denoiser: Denoiser, text: TextTokens) -> ConditionedDenoiser:
    """The denoiser of these texts, without guidance."""
    return _Conditioned(denoiser, text)
