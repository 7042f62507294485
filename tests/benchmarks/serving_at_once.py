"""What sharing batches gains: images a second of many requests at once, and what a small one waits for.

    python -m tests.benchmarks.serving_at_once [--model FOLDER] [--clients 32] [--requests 8] [--smalls 100]

Each client sends one prompt, waits for its signed image and sends the next; the ratio is to one client alone.
Then one client asks for the largest allowed request again and again, and another for one image at a time. By
default, with prompts upsampled, and as they are. CPU time is of the whole process, clients and signatures
included, and says what two cores can do at most where other work keeps the machine busy.

FOLDER: a model as `straightshot` saves it. Without one the network has the sizes of the demo's and random
weights, and no upsampler.
"""

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from components.conditioning.config import TextConfig
from components.conditioning.text import LearnedText
from components.diffusion.config import DiTConfig
from components.diffusion.dit import DiT
from components.generation.generator import Generator
from components.generation.model_folder import Model, ModelCard
from components.provenance.credentials import make_self_signed
from components.provenance.png import PngWriter, png_writer
from components.randomness import SampleSeed
from components.toyworld.prompts import make_prompts
from pipelines.serving.batcher import Batcher
from pipelines.serving.settings import Limits
from pipelines.serving.work import Work

PROMPTS_PER_FORM = 24  # of five forms
T = TypeVar("T")


@dataclass(frozen=True)
class Rates:
    """Images a second of one client and of many; CPU-milliseconds of an image of many."""

    alone: float
    at_once: float
    cpu_ms: float


@dataclass(frozen=True)
class Bench:
    """A model behind a batcher. writer: signs each image beside the next batch; None: nothing does."""

    generator: Generator
    batcher: Batcher
    prompts: list[str]
    writer: PngWriter | None
    encoder: ThreadPoolExecutor

    def request(self, number: int, *, upsample: bool, images: int = 1, steps: int = 1) -> None:
        """Ask for images of as many prompts, and wait for them."""
        prompts = [self.prompts[(number + row) % len(self.prompts)] for row in range(images)]
        seeds = [SampleSeed(number, row) for row in range(images)]
        work = Work(self.generator, prompts, seeds, steps, None, upsample)
        pixels = self.batcher.submit(work).result().pixels
        if self.writer is not None:
            self.encoder.submit(_encode, self.writer, pixels).result()


def measure(
    clients: int,
    requests: int,
    *,
    model: Path | None = None,
    upsample: bool = False,
    provenance: bool = False,
) -> Rates:
    """requests: of each client."""
    return _with_bench(model, provenance, lambda bench: _rates(bench, clients, requests, upsample=upsample))


def beside_the_largest(smalls: int, *, model: Path | None = None, upsample: bool = False) -> list[float]:
    """Seconds of each of so many requests for one image, beside one of the largest that is allowed."""
    return _with_bench(model, True, lambda bench: _waits(bench, smalls, upsample=upsample))


def _rates(bench: Bench, clients: int, requests: int, *, upsample: bool) -> Rates:
    def client(number: int) -> None:
        for request in range(requests):
            bench.request(number * requests + request, upsample=upsample)

    client(-1)  # the first passes take longer
    alone = _seconds(lambda: client(0))
    cpu = time.process_time()
    with ThreadPoolExecutor(clients) as pool:
        at_once = _seconds(lambda: list(pool.map(client, range(clients))))
    cpu = time.process_time() - cpu
    return Rates(requests / alone, clients * requests / at_once, 1000 * cpu / (clients * requests))


def _waits(bench: Bench, smalls: int, *, upsample: bool) -> list[float]:
    limits, is_over = Limits(), threading.Event()
    steps = limits.evaluations // limits.images

    def largest() -> None:
        number = 1000
        while not is_over.is_set():
            bench.request(number, upsample=upsample, images=limits.images, steps=steps)
            number += limits.images

    bench.request(0, upsample=upsample)
    other = threading.Thread(target=largest)
    other.start()
    time.sleep(1.0)
    waits = [_seconds(lambda n=number: bench.request(n, upsample=upsample)) for number in range(smalls)]
    is_over.set()
    other.join()
    return waits


def _with_bench(model: Path | None, provenance: bool, use: Callable[[Bench], T]) -> T:
    generator = Generator.load(model, "cpu") if model is not None else Generator(_model())
    batcher = Batcher(max_requests=1000, max_evaluations=10**6)
    batcher.watch(generator)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as encoder:
        writer = _writer(Path(folder)) if provenance else None
        try:
            return use(Bench(generator, batcher, _prompts(), writer, encoder))
        finally:
            batcher.close()


def _prompts() -> list[str]:
    """Of all five forms, in turn."""
    prompts, step = [prompt.text for prompt in make_prompts(PROMPTS_PER_FORM, seed=3)], PROMPTS_PER_FORM
    return [prompts[at] for row in range(step) for at in range(row, len(prompts), step)]


def _seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def _model() -> Model:
    encoder = LearnedText.fit(_prompts(), vocabulary=300, max_length=48)
    sizes = DiTConfig(image_size=32, patch=8, width=128, depth=5, heads=4, vocabulary=encoder.vocabulary)
    text = TextConfig(max_length=48)
    card = ModelCard(kind="consistency", dit=sizes, text=text, steps=1, guidance=3.0, images_seen=0)
    torch.manual_seed(0)
    return Model(DiT(sizes).eval().requires_grad_(False), encoder, card)


def _writer(folder: Path) -> PngWriter:
    make_self_signed(folder / "credentials.pem")
    return png_writer(True, folder / "credentials.pem")


def _encode(writer: PngWriter, pixels: np.ndarray) -> None:
    from PIL import Image

    for image in pixels:
        writer.encode(Image.fromarray(image), {"prompt": "a prompt"}, "a model")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--requests", type=int, default=8)
    parser.add_argument("--smalls", type=int, default=100)
    options = parser.parse_args()
    for upsample in (True, False) if options.model else (False,):
        rates = measure(
            options.clients, options.requests, model=options.model, upsample=upsample, provenance=True
        )
        how, ratio = "upsampled" if upsample else "as is", rates.at_once / rates.alone
        _print(
            f"{how}: {rates.alone:.0f} images/s alone, {rates.at_once:.0f} at {options.clients} clients,"
            f" ratio {ratio:.1f}, {rates.cpu_ms:.1f} ms of CPU an image"
        )
        waits = beside_the_largest(options.smalls, model=options.model, upsample=upsample)
        half, most = (1000 * float(np.quantile(waits, share)) for share in (0.5, 0.99))
        _print(f"{how}, one image beside the largest request: half within {half:.0f} ms, 99% {most:.0f} ms")


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
