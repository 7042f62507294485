"""One request's way through the batcher: its prompts become captions, its captions images."""

from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from components.generation.generator import Generator
from components.image_size import ImageSize
from components.randomness import SampleSeed
from components.upsampling.prompt_upsampler import UpsampledPrompt, unchanged


@dataclass(frozen=True)
class GeneratedImages:
    """What a request gets. pixels: (N, H, W, 3) uint8; prompts: what each was generated from."""

    pixels: npt.NDArray[np.uint8]
    prompts: list[UpsampledPrompt]


@dataclass(eq=False)
class Work:
    """One request: an image of each prompt. Cancel `answer` to give up its place."""

    generator: Generator
    prompts: Sequence[str]
    seeds: Sequence[SampleSeed]
    steps: int
    guidance: float | None
    upsample: bool
    size: ImageSize | None = None  # the model's own
    answer: "Future[GeneratedImages]" = field(default_factory=Future)

    def __post_init__(self) -> None:
        rows = range(len(self.prompts))
        upsample = self.upsample and self.generator.model.upsampler is not None
        self.captions: list[UpsampledPrompt] = unchanged(self.prompts)
        self.images: dict[int, npt.NDArray[np.uint8]] = {}
        self.to_caption, self.to_generate = (deque(rows), deque()) if upsample else (deque(), deque(rows))
        self.uncaptioned = len(self.to_caption)

    @property
    def unfinished(self) -> int:
        """Images that it still waits for."""
        return len(self.prompts) - len(self.images)

    @property
    def evaluations(self) -> int:
        """Network evaluations that it asks for."""
        return len(self.prompts) * self.steps

    @property
    def kind(self) -> tuple[Generator, int, float | None, ImageSize | None]:
        """What the images of a batch share."""
        return (self.generator, self.steps, self.guidance, self.size)


class CaptionBatch:
    """Prompts of one model's requests that are upsampled side by side. A request that is done drops out."""

    def __init__(self, generator: Generator) -> None:
        assert generator.model.upsampler is not None
        self.generator, self._session = generator, generator.model.upsampler.begin()

    def __len__(self) -> int:
        """Prompts without their caption."""
        return len(self._session)

    @property
    def works(self) -> set[Work]:
        """Whose prompts they are."""
        return {work for work, _ in self._session.open_keys}

    def fill(self, works: Iterable[Work], most: int) -> None:
        """Take further prompts of this model's requests, until there are `most`."""
        for work in works:
            while work.generator is self.generator and work.to_caption and len(self) < most:
                row = work.to_caption.popleft()
                self._session.add((work, row), work.prompts[row], work.seeds[row])

    def advance(self) -> list[tuple[Work, int, UpsampledPrompt]]:
        """Go on by one step; the captions that it ended, with the row of each in its request."""
        if any(work.answer.done() for work in self.works):
            self._session.retain(lambda key: not key[0].answer.done())
        return [(*key, caption) for key, caption in self._session.advance().items()]
