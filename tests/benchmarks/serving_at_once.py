"""What sharing batches gains: images a second of many requests at once, as a ratio to one after another.

    python -m tests.benchmarks.serving_at_once [--clients 32] [--requests 8] [--provenance]

Each client sends one prompt, waits for its image and sends the next; the ratio is to one client alone. The
network has the sizes of the demo's and random weights. --provenance: each image is signed, as the server
does it, beside the next batch.

Measured on two cores of an Intel Cascade Lake: 3.3 at 32 clients (250 images/s), 4 with signatures.
"""

import argparse
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

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
from pipelines.serving.batcher import Batcher
from pipelines.serving.work import Work

PROMPTS = ("a red circle to the left of a blue square", "two green stars", "a yellow cross above a triangle")


@dataclass(frozen=True)
class Rates:
    """Images a second."""

    alone: float
    at_once: float


def measure(clients: int, requests: int, *, provenance: bool = False) -> Rates:
    """requests: of each client."""
    generator = Generator(_model())
    batcher = Batcher(max_requests=clients, max_evaluations=10**6)
    batcher.watch(generator)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as encoder:
        writer = _writer(Path(folder)) if provenance else None

        def client(number: int) -> None:
            for request in range(requests):
                seeds = [SampleSeed(number, request)]
                work = Work(generator, [PROMPTS[request % len(PROMPTS)]], seeds, 1, None, False)
                pixels = batcher.submit(work).result().pixels[0]
                if writer is not None:
                    encoder.submit(_encode, writer, pixels).result()

        try:
            client(-1)  # the first passes take longer
            alone = _seconds(1, client)
            at_once = _seconds(clients, client)
        finally:
            batcher.close()
    return Rates(requests / alone, clients * requests / at_once)


def _seconds(clients: int, client: object) -> float:
    started = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(client, range(clients)))
    return time.perf_counter() - started


def _model() -> Model:
    encoder = LearnedText.fit(PROMPTS, vocabulary=300, max_length=48)
    sizes = DiTConfig(image_size=32, patch=8, width=128, depth=5, heads=4, vocabulary=encoder.vocabulary)
    text = TextConfig(max_length=48)
    card = ModelCard(kind="consistency", dit=sizes, text=text, steps=1, guidance=3.0, images_seen=0)
    torch.manual_seed(0)
    return Model(DiT(sizes).eval().requires_grad_(False), encoder, card)


def _writer(folder: Path) -> PngWriter:
    make_self_signed(folder / "credentials.pem")
    return png_writer(True, folder / "credentials.pem")


def _encode(writer: PngWriter, pixels: object) -> bytes:
    from PIL import Image

    return writer.encode(Image.fromarray(pixels), {"prompt": PROMPTS[0]}, "a model")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--requests", type=int, default=8)
    parser.add_argument("--provenance", action="store_true")
    options = parser.parse_args()
    rates = measure(options.clients, options.requests, provenance=options.provenance)
    sys.stdout.write(
        f"{rates.alone:.0f} images/s alone, {rates.at_once:.0f} at {options.clients} clients,"
        f" ratio {rates.at_once / rates.alone:.1f}\n"
    )


if __name__ == "__main__":
    main()
