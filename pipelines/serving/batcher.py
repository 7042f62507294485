"""Many requests, one model: batches across requests, and short work before long.

One thread does all forward passes. Requests of about one size with the same (model, steps, guidance) share a
batch; an image is a function of its own request's (seed, index), so it is the same whatever else is in the
batch. The next batch is of the request with the least left to do, every other time of the oldest, so that
none waits for ever. Between two forward passes of a long batch, requests that are much shorter go first, and
the long batch waits on the stack. A request that was cancelled gives up its place, also within a batch.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from components.generation.generator import Generator
from components.generation.prompt_upsampler import UpsampledPrompt, unchanged
from components.randomness import SampleSeed
from pipelines.errors import StraightshotError

BATCH_IMAGES = 32
BATCH_CAPTIONS = 16
LONG_SECONDS = 0.1  # a batch with less than this left is not interrupted
MUCH_SHORTER = 4  # times: what interrupts another request, or does not share a batch with it
CAPTION_PASSES = 64  # forward passes of an upsampled caption, about
FIRST_COSTS = {"captions": 0.0005, "images": 0.003}  # seconds of one row in one pass, until measured
NEWEST = 0.2  # weight of the newest measurement in the running mean
STOP_SECONDS = 10.0

logger = logging.getLogger(__name__)


class QueueFull(StraightshotError):
    """More is waiting than may wait. retry_after: seconds until what waits now is done, about."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"too many requests are waiting; send it again in {retry_after:.0f} s")
        self.retry_after = retry_after


class _Abandoned(Exception):
    """Nobody waits for the batch any more."""


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
    def waiting(self) -> bool:
        """Whether some of it is in no batch yet."""
        return bool(self.rows) and not self.answer.done()

    @property
    def kind(self) -> tuple[Any, ...]:
        """What the rows of a batch share."""
        if self.to_caption:
            return ("captions", self.generator)
        return ("images", self.generator, self.steps, self.guidance)

    @property
    def rows(self) -> deque[int]:
        """The rows that are next."""
        return self.to_caption or self.to_generate


@dataclass(eq=False)
class _Batch:
    """Rows of requests that go through the network together."""

    kind: tuple[Any, ...]
    rows: list[tuple[Work, int]]
    passes_left: int

    @property
    def stage(self) -> str:
        return str(self.kind[0])


class Batcher:
    """Takes requests from any thread and answers them. max_requests, max_evaluations: what may wait."""

    def __init__(self, max_requests: int, max_evaluations: int, batch_images: int = BATCH_IMAGES) -> None:
        self.max_requests, self.max_evaluations = max_requests, max_evaluations
        self.limits = {"captions": BATCH_CAPTIONS, "images": batch_images}
        self.costs = dict(FIRST_COSTS)
        self._works: list[Work] = []  # unanswered, the oldest first
        self._running: list[_Batch] = []  # the last one runs, the others wait for it
        self._paused = 0.0  # seconds that the running batch has waited for shorter ones
        self._oldest_next = False
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._serve, name="batcher", daemon=True)
        self._thread.start()

    def submit(self, work: Work) -> "Future[GeneratedImages]":
        """Queue it. Raises QueueFull; one that comes to an empty queue is always taken."""
        with self._changed:
            self._works = [other for other in self._works if not other.answer.done()]
            evaluations = work.evaluations + sum(other.evaluations for other in self._works)
            too_much = len(self._works) >= self.max_requests or evaluations > self.max_evaluations
            if self._closed or (self._works and too_much):
                raise QueueFull(max(1.0, sum(map(self._seconds_left, self._works))))
            self._works.append(work)
            self._changed.notify()
        return work.answer

    def waiting(self) -> tuple[int, int]:
        """How many requests, and how many network evaluations, are unanswered."""
        with self._changed:
            works = [work for work in self._works if not work.answer.done()]
            return len(works), sum(work.evaluations for work in works)

    @property
    def is_running(self) -> bool:
        """Whether requests will be answered."""
        return self._thread.is_alive()

    def watch(self, generator: Generator) -> None:
        """Let shorter work go before each forward pass of this model. Call once before its first request."""
        generator.model.network.register_forward_pre_hook(self._before_pass)
        if generator.model.upsampler is not None:
            language_model = generator.model.upsampler.writer.language_model.model
            language_model.register_forward_pre_hook(self._before_pass)

    def close(self) -> None:
        """Finish the batch that runs, cancel what waits."""
        with self._changed:
            self._closed = True
            for work in self._works:
                work.answer.cancel()
            self._changed.notify()
        self._thread.join(STOP_SECONDS)

    def _serve(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._next_works())
                if self._closed:
                    return
                self._oldest_next = not self._oldest_next
                batch = self._batch_of(self._next_works(oldest_first=self._oldest_next))
            self._run(batch)

    def _next_works(self, *, oldest_first: bool = False, most_seconds: float | None = None) -> list[Work]:
        """Those that wait, in the order in which they go. most_seconds: that take no longer than this."""
        works = [work for work in self._works if work.waiting]
        if most_seconds is not None:
            works = [work for work in works if self._seconds_left(work) <= most_seconds]
        return works if oldest_first else sorted(works, key=self._seconds_left)

    def _batch_of(self, works: Sequence[Work]) -> _Batch:
        """A batch of the first one's next rows, filled up with those of others of its kind and size."""
        kind, seconds = works[0].kind, self._seconds_left(works[0])
        rows: list[tuple[Work, int]] = []
        for work in works:
            other = self._seconds_left(work)
            if max(seconds, other) > MUCH_SHORTER * min(seconds, other):
                continue
            while work.rows and work.kind == kind and len(rows) < self.limits[kind[0]]:
                rows.append((work, work.rows.popleft()))
        return _Batch(kind, rows, CAPTION_PASSES if kind[0] == "captions" else works[0].steps)

    def _run(self, batch: _Batch) -> None:
        """Run it, and what goes before it meanwhile; its requests get their answer, or its error."""
        passes, began, paused_outside = batch.passes_left, time.monotonic(), self._paused
        self._paused = 0.0
        self._running.append(batch)
        try:
            self._caption(batch) if batch.stage == "captions" else self._generate(batch)
            seconds = time.monotonic() - began - self._paused
            measured = seconds / (len(batch.rows) * max(1, passes))
            self.costs[batch.stage] += NEWEST * (measured - self.costs[batch.stage])
        except _Abandoned:
            pass
        except Exception as error:
            logger.exception("a batch failed")
            for work in {work for work, _ in batch.rows}:
                with suppress(InvalidStateError):
                    work.answer.set_exception(error)
        finally:
            self._running.pop()
            self._paused = paused_outside + time.monotonic() - began

    def _caption(self, batch: _Batch) -> None:
        generator: Generator = batch.kind[1]
        prompts, seeds = _prompts_and_seeds(batch)
        captions = generator.upsample_each(prompts, seeds)
        with self._changed:
            for (work, row), caption in zip(batch.rows, captions, strict=True):
                work.captions[row] = caption
                work.uncaptioned -= 1
                work.to_generate.append(row)

    def _generate(self, batch: _Batch) -> None:
        _, generator, steps, guidance = batch.kind
        captions = [work.captions[row].caption for work, row in batch.rows]
        seeds = _prompts_and_seeds(batch)[1]
        images = generator.generate_each(captions, seeds, steps=steps, guidance=guidance)
        for (work, row), image in zip(batch.rows, images, strict=True):
            work.images[row] = image
            if not work.unfinished:
                pixels = np.stack([work.images[row] for row in range(len(work.prompts))])
                with suppress(InvalidStateError):  # cancelled just now
                    work.answer.set_result(GeneratedImages(pixels, work.captions))

    def _before_pass(self, *_: Any) -> None:
        """Called by torch before every forward pass: run what is much shorter than what is left here."""
        if not self._running or threading.current_thread() is not self._thread:
            return
        batch = self._running[-1]
        works = {work for work, _ in batch.rows if not work.answer.cancelled()}
        if not works:
            raise _Abandoned
        batch_seconds = len(batch.rows) * batch.passes_left * self.costs[batch.stage]
        if batch.stage == "images":  # how many passes captions still take is not known
            batch.passes_left -= 1
        if batch_seconds < LONG_SECONDS:
            return
        seconds = min(batch_seconds, *map(self._seconds_left, works))
        with self._changed:
            shorter_works = self._next_works(most_seconds=seconds / MUCH_SHORTER)
            shorter = self._batch_of(shorter_works) if shorter_works else None
        if shorter is not None:
            self._run(shorter)

    def _seconds_left(self, work: Work) -> float:
        """What it still takes, about, if it were alone."""
        captions = work.uncaptioned * CAPTION_PASSES * self.costs["captions"]
        return captions + work.unfinished * work.steps * self.costs["images"]


def _prompts_and_seeds(batch: _Batch) -> tuple[list[str], list[SampleSeed]]:
    return [work.prompts[row] for work, row in batch.rows], [work.seeds[row] for work, row in batch.rows]
