"""How much of the captioning stage's worker is its captioner's bare `generate`.

    python -m tests.benchmarks.captioning_stage_against_generate [--records 64] [--side 256]

The worker reads a part, decodes, embeds images and captions with an untrained judge, tokenizes, cleans,
checks and writes a part; the time within `model.generate` is taken in the same run. The captioner is
untrained and as large as the one that a demo fits: a larger one's share is larger. CPU seconds, one thread,
medians.
"""

import argparse
import io
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from components.captioning.architecture import make_model, make_processor, train_tokenizer
from components.captioning.config import CaptionerFitConfig
from components.corpus.schemas import FILTERED
from pipelines.stage import Input
from pipelines.stages.data.recaption_config import RecaptionConfig
from pipelines.stages.data.reject_examples import examples_in_part
from pipelines.stages.model_runtime import judge_name
from pipelines.stages.recaption import CaptionerSource, CaptionWorker
from pipelines.store.parts import Parts
from tests.benchmarks.filter_at_scale import annotators

ROUNDS = 3
WORDS = "a brown dog runs along sandy beach at sunset with small red ball in front of the house"


def generate_share(folder: Path, records: int, side: int) -> float:
    """CPU seconds within `generate`, as a share of the worker's."""
    torch.set_num_threads(1)
    part = write_part(folder / "part-00000.parquet", records, side)
    save_captioner(folder / "captioner")
    source = CaptionerSource("untrained", str(folder / "captioner"))
    judge = judge_name(Input("annotators", str(annotators(folder)), "a" * 64))
    shares = []
    for number in range(ROUNDS):
        worker = CaptionWorker(Parts(folder / str(number), "recaption"), RecaptionConfig(), source, judge)
        spent = timed_generate(worker.captioner.model)  # type: ignore[attr-defined]
        started = time.process_time()
        worker({"name": part.stem, "path": str(part), "examples": examples_in_part(0, parts=1)})
        shares.append(sum(spent) / (time.process_time() - started))
    return median(shares)


def timed_generate(model: Any) -> list[float]:
    """Has the model note in the list what each call of its `generate` takes."""
    spent: list[float] = []
    generate = model.generate

    def timed(**inputs: Any) -> Any:
        started = time.process_time()
        try:
            return generate(**inputs)
        finally:
            spent.append(time.process_time() - started)

    model.generate = timed
    return spent


def save_captioner(folder: Path) -> None:
    """An untrained captioner with the sizes of CaptionerFitConfig."""
    torch.manual_seed(0)
    config = CaptionerFitConfig()
    tokenizer = train_tokenizer([WORDS], config.vocabulary)
    model = make_model(
        tokenizer,
        image_size=config.image_size,
        channels=config.channels,
        blocks=config.blocks,
        width=config.width,
        text_depth=config.text_depth,
        heads=config.heads,
    )
    model.save_pretrained(folder)
    make_processor(tokenizer, config.image_size).save_pretrained(folder)


def write_part(path: Path, records: int, side: int) -> Path:
    """A part as the filter writes it, of JPEGs."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(records):
        colours = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
        stream = io.BytesIO()
        colours.resize((side, side), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=90)
        rows.append(
            {
                "key": f"{number:032x}",
                "image": stream.getvalue(),
                "alt_text": WORDS,
                "width": side,
                "height": side,
                "language": "en",
            }
        )
    pq.write_table(pa.Table.from_pylist(rows, schema=FILTERED), path)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    for name, default in (("records", 64), ("side", 256)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        share = generate_share(Path(folder), options.records, options.side)
    sys.stdout.write(f"generate is {share:.3f} of the captioning worker's time\n")


if __name__ == "__main__":
    main()
