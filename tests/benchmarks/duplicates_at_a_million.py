"""What the search for duplicates costs as the corpus grows: seconds of one core, and memory.

    python -m tests.benchmarks.duplicates_at_a_million [--rows 1000000] [--kind white] [--folder DIR]

Searches half of the rows, then all of them, each in a process of its own, with every step and file of the
filter's search, in one process instead of a pool's. Hashes are synthetic: natural ones are spread over all
bits, white ones (drawings on white) lie in few clusters, each a pattern with some bits of an image's own. One
row in a hundred repeats another's bytes, one in a hundred is a copy with a few other bits; the share of these
that is found is printed. Embeddings of other images are unlike, as a pretrained judge's are, so their
thumbnails are not compared. Thumbnails come from a pool, so that files are smaller than a real corpus's.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from components.corpus.schemas import FILTERED, Reason
from components.filtering.duplicates import DuplicateRules
from components.filtering.signature import HASH_BYTES, signature_of
from pipelines.execution.engine import Engine
from pipelines.stages.data.duplicate_search import (
    DECIDED,
    SIGNATURE,
    SearchSettings,
    SearchSizes,
    plan_sources,
    search,
)
from pipelines.store.parts import Parts

KINDS = ("natural", "white")
PART_ROWS = 512  # as the filter writes them, by default
POOL = 64  # thumbnails
DIMENSIONS = 64  # of an embedding
WHITE_PATTERNS, WHITE_BITS = 40, 14  # clusters, and about how many bits an image in one has of its own
EVERY = 100  # rows, of which one repeats bytes and one is a copy
COPY_BITS = 3


@dataclass(frozen=True)
class Costs:
    """cpu: seconds of one core. wall: seconds. peak_mb: memory above what the process took before."""

    rows: int
    cpu: float
    wall: float
    peak_mb: float
    found: float  # share of the copies
    wrong: int  # other rows that were refused


def measure(rows: int, kind: str, folder: Path) -> Costs:
    """Make the corpus in the folder, search it in a new process."""
    write_corpus(rows, kind, folder)
    program = [sys.executable, "-m", "tests.benchmarks.duplicates_at_a_million", "--search", str(folder)]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(program, stdout=subprocess.PIPE, cwd=root, text=True, check=True)
    return Costs(**json.loads(done.stdout))


def write_corpus(rows: int, kind: str, folder: Path) -> None:
    """Parts of PART_ROWS rows with the columns that the search reads."""
    rng = np.random.default_rng(0)
    patterns = rng.random((WHITE_PATTERNS, 8 * HASH_BYTES)) < 0.5
    pool = [_picture(rng) for _ in range(POOL)]
    schema = pa.schema([FILTERED.field(name) for name in (*SIGNATURE, "judge_score")])
    for start in range(0, rows, PART_ROWS):
        orders = np.arange(start, min(start + PART_ROWS, rows))
        bits = rng.random((len(orders), 8 * HASH_BYTES)) < 0.5
        if kind == "white":
            own = rng.random(bits.shape) < WHITE_BITS / (8 * HASH_BYTES)
            bits = patterns[rng.integers(0, WHITE_PATTERNS, len(orders))] ^ own
        digests, vectors = rng.integers(0, 256, (len(orders), 32), np.uint8), _unit(rng, len(orders))
        pictures = rng.integers(0, POOL, len(orders))
        # Of each EVERY the second is the first again, the third a copy of it.
        for first in np.flatnonzero(orders % EVERY == 0):
            for row in range(first + 1, min(first + 3, len(orders))):
                bits[row], vectors[row], pictures[row] = bits[first], vectors[first], pictures[first]
            if first + 1 < len(orders):
                digests[first + 1] = digests[first]
            if first + 2 < len(orders):
                bits[first + 2, rng.choice(bits.shape[1], COPY_BITS, replace=False)] ^= True
        hashes = np.packbits(bits, axis=1)
        columns = {
            "key": [f"{order:032d}" for order in orders],
            "sha256": [digest.tobytes().hex() for digest in digests],
            "phash": [2 * row.tobytes().hex() for row in hashes],
            "thumbnail": [pool[picture] for picture in pictures],
            "content_box": [[0.0, 0.0, 1.0, 1.0]] * len(orders),
            "embedding": list(vectors),
            "judge_score": np.zeros(len(orders), np.float32),
        }
        pq.write_table(pa.table(columns, schema=schema), folder / f"part-{start // PART_ROWS:06d}.parquet")


def search_corpus(folder: Path) -> Costs:
    """Search it in this process."""
    from components.filtering.alignment import are_copies

    sources = plan_sources(sorted(folder.glob("part-*.parquet")))
    rows = sum(source.rows for source in sources)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        parts = Parts(Path(scratch), "duplicates")
        are_copies([], [], [])  # import what it needs
        before, wall, cpu = _peak_mb(), time.perf_counter(), time.process_time()
        settings = SearchSettings(DuplicateRules(), None, None)
        search(Engine("127.0.0.1:1"), parts, sources, settings, SearchSizes(rows_without_a_pool=rows))
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        decided = pq.read_table(parts.path(DECIDED))
        refused = set(decided["order"].to_pylist())
        assert set(decided["reason"].to_pylist()) <= {Reason.DUPLICATE.value, Reason.NEAR_DUPLICATE.value}
    repeated = _repeats(rows)
    found = len(refused & repeated) / len(repeated)
    return Costs(rows, cpu, wall, _peak_mb() - before, found, len(refused - repeated))


def _repeats(rows: int) -> set[int]:
    """The orders that repeat another within their part."""
    firsts = range(0, rows, EVERY)
    return {
        order
        for first in firsts
        for order in (first + 1, first + 2)
        if order < rows and order // PART_ROWS == first // PART_ROWS
    }


def _unit(rng: np.random.Generator, count: int) -> npt.NDArray[np.float16]:
    vectors = rng.normal(size=(count, DIMENSIONS))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


def _picture(rng: np.random.Generator) -> bytes:
    coarse = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
    return signature_of(coarse.resize((160, 160), Image.Resampling.BICUBIC)).thumbnail


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--kind", choices=KINDS, action="append")
    parser.add_argument("--folder", type=Path, help="for the corpus; by default a temporary one")
    parser.add_argument("--search", type=Path, help=argparse.SUPPRESS)
    settings = parser.parse_args()
    if settings.search is not None:
        sys.stdout.write(json.dumps(asdict(search_corpus(settings.search))))
        return
    for kind in settings.kind or KINDS:
        costs = []
        for rows in (settings.rows // 2, settings.rows):
            with tempfile.TemporaryDirectory(dir=settings.folder) as folder:
                costs.append(measure(rows, kind, Path(folder)))
            one = costs[-1]
            sys.stdout.write(
                f"{kind:8} {rows:9,} rows: {one.cpu:6.1f} s of one core ({one.wall:.0f} s),"
                f" {one.peak_mb:5.0f} MB,"
                f" {one.found:.3f} of the copies, {one.wrong} others\n"
            )
            sys.stdout.flush()
        sys.stdout.write(f"{kind:8} twice the rows take {costs[1].cpu / costs[0].cpu:.2f} times as long\n")


if __name__ == "__main__":
    main()
