"""What the filter costs beside the records themselves: a fragment, a second worker, memory.

    python -m tests.benchmarks.filter_at_scale [--records 2000 20000] [--large 160 480] [--timed 20000]

Fragments: the stage over the same records in few and in many, without Ray; the difference a fragment.
Workers: the stage on Ray with one and with two, taking turns, medians; the pool's start counts. Memory: how
much the peak of a process that measures grows beyond what it has with its models loaded, for small PNGs and
for JPEGs of 2 MB, each with fewer and with more of them; each in a process of its own. The judge is
untrained.
"""

import argparse
import io
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from components.corpus.readers import open_corpus
from components.corpus.schemas import CORPUS
from pipelines.execution.engine import Engine
from pipelines.execution.progress import Progress
from pipelines.stage import Input, run_stage
from pipelines.stages.filter import STAGE, FilterConfig, MeasureWorker
from pipelines.stages.model_runtime import judge_name
from pipelines.store.parts import Parts
from tests.pipelines.one_by_one import OneByOne
from tests.small_judge import save_judge

ROUNDS = 3
GROUP = 256  # rows of a row group of the corpus
SMALL_SIDE, LARGE_SIDE = 40, 1200  # pixels; some 2 kB as PNG, 2 MB as JPEG


def fragment_milliseconds(folder: Path, records: int, each: int = 4) -> float:
    """What a fragment costs beside its `each` records."""
    corpus = write_corpus(folder / "fragments.parquet", records, SMALL_SIDE)
    costs = []
    for round_ in range(ROUNDS):
        few = seconds(folder / f"few-{round_}", corpus, OneByOne(), records)
        many = seconds(folder / f"many-{round_}", corpus, OneByOne(), each)
        costs.append(1000 * (many - few) / (records / each - 1))
    return median(costs)


def worker_ratio(folder: Path, records: int) -> tuple[float, float]:
    """Seconds with one worker, and how many times faster two are."""
    corpus = write_corpus(folder / "workers.parquet", records, SMALL_SIDE)
    taken: dict[int, list[float]] = {1: [], 2: []}
    for round_ in range(ROUNDS):
        for workers, times in taken.items():
            with Engine("local", workers) as engine:
                engine.start()
                times.append(seconds(folder / f"{workers}-{round_}", corpus, engine, GROUP))
    return median(taken[1]), median(taken[1]) / median(taken[2])


def growth_mb(folder: Path, records: int, side: int) -> float:
    """By how many MB the peak of a process that measures so many records is above its models."""
    corpus = write_corpus(folder / f"{side}-{records}.parquet", records, side)
    program = "import sys; from tests.benchmarks.filter_at_scale import peak; peak(*sys.argv[1:])"
    command = [sys.executable, "-c", program, str(folder), corpus, str(annotators(folder))]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(ended.stdout)


def peak(folder: str, corpus: str, judge: str) -> None:
    """In a process of its own: print that."""
    config = FilterConfig()
    parts = Parts(Path(folder) / f"measured-{time.time_ns()}", "filter", "run")
    streams = open_corpus(corpus, config.rows_per_fragment, config.fragment_bytes).streams
    judge = judge_name(Input("annotators", judge, "a" * 64))
    worker = MeasureWorker(parts, config, "default", judge, sum(map(len, streams)))
    before = highest_mb()
    for stream in streams:
        worker({"fragments": [fragment.to_dict() for fragment in stream]})
    sys.stdout.write(str(highest_mb() - before))


def highest_mb() -> float:
    """The most memory that this process has had, MB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def seconds(home: Path, corpus: str, engine: Engine | OneByOne, rows: int) -> float:
    """Of one run of the stage, with fragments of so many rows."""
    inputs = {
        "corpus": (Input("corpus", corpus, "c" * 64),),
        "annotators": (Input("annotators", str(annotators(home.parent)), "a" * 64),),
    }
    config = FilterConfig(rows_per_fragment=rows)
    progress = Progress(None, quiet=True)
    started = time.perf_counter()
    run_stage(STAGE, config, inputs, home=home, snapshot="default", engine=engine, progress=progress)
    return time.perf_counter() - started


def annotators(folder: Path) -> Path:
    """An annotators output with an untrained judge."""
    path = folder / "annotators"
    if not path.exists():
        save_judge(path / "judge")
    return path


def write_corpus(path: Path, records: int, side: int) -> str:
    """So many different images with a text each."""
    group = GROUP if side == SMALL_SIDE else 16  # a row group of large images is no larger than a fragment
    with pq.ParquetWriter(path, CORPUS) as writer:
        for start in range(0, records, group):
            rows = list(_rows(range(start, min(start + group, records)), side))
            writer.write_table(pa.Table.from_pylist(rows, schema=CORPUS))
    return f"parquet:{path}"


def _rows(numbers: range, side: int) -> Iterator[dict[str, object]]:
    for number in numbers:
        rng = np.random.default_rng(number)
        stream = io.BytesIO()
        if side == SMALL_SIDE:
            colours = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
            colours.resize((side, side), Image.Resampling.BICUBIC).save(stream, "PNG")
        else:
            noise = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
            Image.fromarray(noise).save(stream, "JPEG", quality=92, subsampling=0)
        text = f"A brown dog beside {number} green trees on a sunny hill"
        yield {"image": stream.getvalue(), "alt_text": text, "url": f"https://example.org/{number}"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--records", type=int, nargs=2, default=(2000, 20_000))
    parser.add_argument("--large", type=int, nargs=2, default=(160, 480))
    parser.add_argument("--timed", type=int, default=20_000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cost = fragment_milliseconds(folder, min(options.timed, 400))
        sys.stdout.write(f"a fragment: {cost:.1f} ms beside its records\n")
        one, ratio = worker_ratio(folder, options.timed)
        sys.stdout.write(f"two workers: {ratio:.2f} times one ({one:.0f} s for {options.timed:,} records)\n")
        sys.stdout.flush()
        for side, counts in ((SMALL_SIDE, options.records), (LARGE_SIDE, options.large)):
            grown = [growth_mb(folder, records, side) for records in counts]
            pairs = ", ".join(f"{mb:.0f} MB for {n:,}" for mb, n in zip(grown, counts, strict=True))
            sys.stdout.write(f"peak above the models, images of {side} pixels a side: {pairs}\n")


if __name__ == "__main__":
    main()
