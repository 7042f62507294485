"""Many requests, one model: batches across requests, and short work before long.

Two threads: one writes captions of prompts, the other generates images. A caption begins beside those that
are being written and leaves when it is done, so that none waits for a longer one. Requests of about one size
with the same (model, steps, guidance, size) share a batch of images. Captions and images are functions of
their own request's (prompt, seed, index), so they are the same whatever else is in the batch. What comes
next is of the request with the least left to do, every other time of the oldest, so that none waits for ever.
Between two forward passes of a long batch, requests that are much shorter go first, and the long batch waits
on the stack. A request that was cancelled gives up its place, also within a batch.
"""

import logging
import os
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from components.generation.generator import Generator
from components.image_size import ImageSize
from pipelines.errors import StraightshotError
from pipelines.serving.work import CaptionBatch, GeneratedImages, Work

BATCH_IMAGES = 32
LEAST_BATCH = 8
PASS_SECONDS = 0.1  # of a forward pass, about: where one of `batch_images` takes longer, fewer share it
BATCH_CAPTIONS = 32  # prompts that are upsampled side by side
GATHER_SECONDS = 0.03  # that images wait for others to share their batch
LONG_SECONDS = 0.1  # a batch with less than this left is not interrupted
MUCH_SHORTER = 4  # times: what interrupts another request, or does not share a batch with it
FIRST_COSTS = {"captions": 0.01, "images": 0.003}  # seconds of a caption, of an image's pass; until measured
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


@dataclass(eq=False)
class _Batch:
    """Rows of requests whose images go through the network together."""

    kind: tuple[Generator, int, float | None, ImageSize | None]
    rows: list[tuple[Work, int]]
    passes_left: int


class Batcher:
    """Takes requests from any thread and answers them. max_requests, max_evaluations: what may wait."""

    def __init__(self, max_requests: int, max_evaluations: int, batch_images: int = BATCH_IMAGES) -> None:
        self.max_requests, self.max_evaluations = max_requests, max_evaluations
        self.batch_images, self.costs = batch_images, dict(FIRST_COSTS)
        self._works: list[Work] = []  # unanswered, the oldest first
        self._running: list[_Batch] = []  # the last one runs, the others wait for it
        self._paused = 0.0  # seconds that the running batch has waited for shorter ones
        self._oldest_next = {"captions": False, "images": False}
        self._captioning = 0  # prompts that are being upsampled
        self._closed = False
        self._changed = threading.Condition()
        self._captions = threading.Thread(target=self._write_captions, name="captions", daemon=True)
        self._images = threading.Thread(target=self._generate_images, name="images", daemon=True)
        for thread in (self._captions, self._images):
            thread.start()

    def submit(self, work: Work) -> "Future[GeneratedImages]":
        """Queue it. Raises QueueFull; one that comes to an empty queue is always taken."""
        with self._changed:
            self._works = [other for other in self._works if not other.answer.done()]
            evaluations = work.evaluations + sum(other.evaluations for other in self._works)
            too_much = len(self._works) >= self.max_requests or evaluations > self.max_evaluations
            if self._closed or (self._works and too_much):
                raise QueueFull(max(1.0, sum(map(self._seconds_left, self._works))))
            self._works.append(work)
            self._changed.notify_all()
        return work.answer

    def waiting(self) -> tuple[int, int]:
        """How many requests, and how many network evaluations, are unanswered."""
        with self._changed:
            works = [work for work in self._works if not work.answer.done()]
            return len(works), sum(work.evaluations for work in works)

    @property
    def is_running(self) -> bool:
        """Whether requests will be answered."""
        return self._captions.is_alive() and self._images.is_alive()

    def watch(self, generator: Generator) -> None:
        """Let shorter work go before each forward pass of this model. Call once before its first request."""
        generator.model.network.register_forward_pre_hook(self._before_pass)

    def close(self) -> None:
        """Finish the batch that runs, cancel what waits."""
        with self._changed:
            self._closed = True
            for work in self._works:
                work.answer.cancel()
            self._changed.notify_all()
        for thread in (self._captions, self._images):
            thread.join(STOP_SECONDS)

    def _write_captions(self) -> None:
        torch.set_num_threads(_threads())
        batch: CaptionBatch | None = None
        began = time.monotonic()
        while True:
            with self._changed:
                if not batch:
                    self._changed.wait_for(lambda: self._closed or self._next_works("to_caption"))
                    began = time.monotonic()
                if self._closed:
                    return
                works = self._next_works("to_caption", oldest_first=self._takes_oldest("captions"))
                batch = batch or CaptionBatch(works[0].generator)
                batch.fill(works, BATCH_CAPTIONS)
            try:
                captions = batch.advance()
            except Exception as error:
                logger.exception("captions failed")
                _fail(batch.works, error)
                batch, captions = None, []
            with self._changed:
                for work, row, caption in captions:
                    work.captions[row] = caption
                    work.uncaptioned -= 1
                    work.to_generate.append(row)
                self._captioning = len(batch or ())
                self._changed.notify_all()
            if captions:
                self._measured("captions", (time.monotonic() - began) / len(captions))
                began = time.monotonic()

    def _generate_images(self) -> None:
        torch.set_num_threads(_threads())
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._next_works("to_generate"))
                # Those whose captions are about to be done share the batch.
                self._changed.wait_for(lambda: self._closed or self._is_worth_a_pass(), GATHER_SECONDS)
                if self._closed:
                    return
                works = self._next_works("to_generate", oldest_first=self._takes_oldest("images"))
                batch = self._batch_of(works) if works else None
            if batch is not None:
                self._run(batch)

    def _is_worth_a_pass(self) -> bool:
        ready = sum(len(work.to_generate) for work in self._next_works("to_generate"))
        return ready >= min(self._captioning, self._most_images())

    def _most_images(self) -> int:
        """Of a batch: what comes while a pass runs waits for its end, however short it is."""
        return min(self.batch_images, max(LEAST_BATCH, int(PASS_SECONDS / self.costs["images"])))

    def _takes_oldest(self, thread: str) -> bool:
        """Every other time."""
        self._oldest_next[thread] = not self._oldest_next[thread]
        return self._oldest_next[thread]

    def _next_works(
        self, rows: Literal["to_caption", "to_generate"], *, oldest_first: bool = False
    ) -> list[Work]:
        """Those of which such rows wait, in the order in which they go."""
        works = [work for work in self._works if getattr(work, rows) and not work.answer.done()]
        return works if oldest_first else sorted(works, key=self._seconds_left)

    def _batch_of(self, works: Sequence[Work]) -> _Batch:
        """A batch of the first one's next images, filled up with those of others of its kind and size."""
        kind, seconds, most = works[0].kind, self._seconds_left(works[0]), self._most_images()
        rows: list[tuple[Work, int]] = []
        for work in works:
            other = self._seconds_left(work)
            if work.kind != kind or max(seconds, other) > MUCH_SHORTER * min(seconds, other):
                continue
            while work.to_generate and len(rows) < most:
                rows.append((work, work.to_generate.popleft()))
        return _Batch(kind, rows, works[0].steps)

    def _run(self, batch: _Batch) -> None:
        """Run it, and what goes before it meanwhile; its requests get their answer, or its error."""
        passes, began, paused_outside = batch.passes_left, time.monotonic(), self._paused
        self._paused = 0.0
        self._running.append(batch)
        try:
            self._generate(batch)
            seconds = time.monotonic() - began - self._paused
            self._measured("images", seconds / (len(batch.rows) * max(1, passes)))
        except _Abandoned:
            pass
        except Exception as error:
            logger.exception("a batch failed")
            _fail({work for work, _ in batch.rows}, error)
        finally:
            self._running.pop()
            self._paused = paused_outside + time.monotonic() - began

    def _generate(self, batch: _Batch) -> None:
        generator, steps, guidance, size = batch.kind
        captions = [work.captions[row].caption for work, row in batch.rows]
        seeds = [work.seeds[row] for work, row in batch.rows]
        images = generator.generate_each(captions, seeds, steps=steps, guidance=guidance, size=size)
        for (work, row), image in zip(batch.rows, images, strict=True):
            work.images[row] = image
            if not work.unfinished:
                pixels = np.stack([work.images[row] for row in range(len(work.prompts))])
                with suppress(InvalidStateError):  # cancelled just now
                    work.answer.set_result(GeneratedImages(pixels, work.captions))

    def _before_pass(self, *_: Any) -> None:
        """Called by torch before every forward pass: run what is much shorter than what is left here."""
        if not self._running or threading.current_thread() is not self._images:
            return
        batch = self._running[-1]
        works = {work for work, _ in batch.rows if not work.answer.cancelled()}
        if not works:
            raise _Abandoned
        batch_seconds = len(batch.rows) * batch.passes_left * self.costs["images"]
        batch.passes_left -= 1
        if batch_seconds < LONG_SECONDS:
            return
        seconds = min(batch_seconds, *map(self._seconds_left, works))
        with self._changed:
            ready = self._next_works("to_generate")
            is_shorter = bool(ready) and self._seconds_left(ready[0]) <= seconds / MUCH_SHORTER
            shorter = self._batch_of(ready) if is_shorter else None
        if shorter is not None:
            self._run(shorter)

    def _seconds_left(self, work: Work) -> float:
        """What it still takes, about, if it were alone."""
        captions = work.uncaptioned * self.costs["captions"]
        return captions + work.unfinished * work.steps * self.costs["images"]

    def _measured(self, what: str, seconds: float) -> None:
        self.costs[what] += NEWEST * (seconds - self.costs[what])


def _fail(works: Iterable[Work], error: Exception) -> None:
    for work in works:
        with suppress(InvalidStateError):
            work.answer.set_exception(error)


def _threads() -> int:
    """Of each of the two, in its arithmetic: more than there are cores for wait for each other, spinning."""
    return max(1, min(torch.get_num_threads(), len(os.sched_getaffinity(0)) // 2))
