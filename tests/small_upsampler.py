"""An upsampler that takes a second to fit, for tests of what is done with one."""

from collections.abc import Sequence

from components.captioning.config import UpsamplerConfig
from components.captioning.upsampler import Upsampler
from components.captioning.upsampler_fit import fit_upsampler


def small_upsampler(pairs: Sequence[tuple[str, str]], captions: int = 64) -> Upsampler:
    """Fitted on so many captions of `pairs`: its words are made of theirs, and seldom the right ones."""
    config = UpsamplerConfig(width=16, depth=1, heads=1, vocabulary=300)
    training = config.training.model_copy(update={"images": captions})
    return fit_upsampler(pairs, config.model_copy(update={"training": training}), seed=0)
