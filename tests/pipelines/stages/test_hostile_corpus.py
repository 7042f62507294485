"""The hostile table through the data half, as Parquet, as a folder and as a tar: each input ends once.

Filter, recaption and shard with the annotators of a micro run, then the page, `trace` and the card.
"""

import io
import json
import re
import shutil
import tarfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from components.corpus.readers import open_corpus
from components.corpus.schemas import Reason
from components.corpus.side_files import DAMAGED_JSON
from components.shards.index import HOLDOUT, INDEX_NAME, TRAIN
from components.shards.reader import read_split
from pipelines.config import RunConfig, saved_config
from pipelines.execution.progress import Progress
from pipelines.graph import stage_named
from pipelines.planning.planned import Planned, State
from pipelines.records.dataset_card import write_card
from pipelines.records.trace import trace
from pipelines.report import write_run_report
from pipelines.retention.catalog import read_catalog
from pipelines.stage import Input, run_stage
from pipelines.store.receipts import Receipt
from tests.components.corpus.hostile_images import IMAGES, encoded, photo
from tests.components.corpus.test_hostile_table import TEXT, TEXTS
from tests.pipelines.one_by_one import OneByOne

DATA = ("filter", "recaption", "shard")
LICENCES = ("CC0-1.0", "https://creativecommons.org/licenses/by/4.0/", "?")


@dataclass(frozen=True)
class Case:
    """One input. expected: its reason; None: it goes on."""

    number: int
    image: bytes | None
    text: str | None
    expected: str | None

    @property
    def name(self) -> str:
        return f"{self.number:03d}"

    @property
    def fields(self) -> dict[str, Any]:
        licence = LICENCES[self.number % len(LICENCES)]
        return {
            "caption": self.text,
            "LICENSE": licence,
            "source": "the table",
            "url": f"https://x/{self.name}",
        }


def cases() -> list[Case]:
    """The images with a good text, and the texts each with a good image of its own."""
    inputs = [(image, TEXT, reason) for _, image, reason in IMAGES]
    inputs += [(encoded(photo(90 + n), "PNG"), text, reason) for n, (text, reason) in enumerate(TEXTS)]
    first: dict[bytes | None, int] = {}
    for number, (image, _, reason) in enumerate(inputs):
        if reason is None:
            first.setdefault(image, number)
    return [
        Case(n, image, text, reason or (None if first[image] == n else Reason.DUPLICATE))
        for n, (image, text, reason) in enumerate(inputs)
    ]


def as_parquet(folder: Path, table: list[Case]) -> str:
    """Texts as the bytes that a crawl might have had: a string of Arrow's has no half of a surrogate pair."""
    raw = pa.array([None if c.text is None else c.text.encode("utf-8", "surrogatepass") for c in table])
    columns = {
        "image": pa.array([c.image for c in table], pa.binary()),
        "alt_text": pa.Array.from_buffers(pa.string(), len(raw), raw.buffers()),
        **{name: [c.fields[name] for c in table] for name in ("LICENSE", "source", "url")},
    }
    pq.write_table(pa.table(columns), folder / "web.parquet", row_group_size=40)
    return f"parquet:{folder}"


def as_folder(folder: Path, table: list[Case]) -> str:
    """A table of all; an image that is missing is a row without its file."""
    rows = [{"file_name": f"{c.name}.png", **c.fields} for c in table]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for case in table:
        if case.image is not None:
            (folder / f"{case.name}.png").write_bytes(case.image)
    extra = encoded(photo(170), "PNG")
    for suffix, data in ((".png", extra), (".txt", TEXT.encode()), (".json", b'{"license": "CC0-1.0"')):
        (folder / f"{len(table):03d}{suffix}").write_bytes(data)
    return f"folder:{folder}"


def as_tar(folder: Path, table: list[Case]) -> str:
    members = [(f"{c.name}.json", json.dumps(c.fields).encode()) for c in table]
    members += [(f"{c.name}.png", c.image) for c in table if c.image is not None]
    extra = f"{len(table):03d}"
    members += [(f"{extra}.png", encoded(photo(170), "PNG")), (f"{extra}.json", b"[]")]
    members.append((f"{extra}.txt", TEXT.encode()))
    with tarfile.open(folder / "web.tar", "w") as tar:
        for name, data in sorted(members):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return f"webdataset:{folder}"


def run_data_stages(home: Path, corpus: str, micro_home: Path) -> dict[str, Receipt]:
    """With micro's config, but that only equal bytes are duplicates: most of the table is one picture."""
    config = saved_config(micro_home)
    assert config is not None
    duplicates = config.filter.duplicates.model_copy(update={"near": False})
    configs = {
        "filter": config.filter.model_copy(update={"duplicates": duplicates}),
        "recaption": config.recaption,
        "shard": config.shard,
    }
    (annotators,) = read_catalog(micro_home).of("annotators")
    receipt = annotators.receipt
    own = shutil.copytree(annotators.path, home / "annotators" / annotators.path.name)  # the card looks here
    inputs = {
        "annotators": (Input("annotators", str(own), receipt.digest, receipt),),
        "corpus": (Input("corpus", corpus, open_corpus(corpus).digest()),),
    }
    receipts: dict[str, Receipt] = {}
    for name in DATA:
        stage = stage_named(name)
        made = run_stage(
            stage,
            configs[name],
            {source: inputs[source] for source in stage.inputs if source in inputs},
            home=home,
            snapshot="default",
            engine=OneByOne(),
            progress=Progress(quiet=True),
        )
        receipts[name] = made
        inputs[name] = (Input(name, str(home / name / made.fingerprint), made.digest, made),)
    return receipts


def rows(home: Path, receipt: Receipt, folder: str) -> list[dict[str, Any]]:
    out = home / receipt.stage / receipt.fingerprint
    paths = [entry.path for entry in receipt.files if entry.path.startswith(f"{folder}/")]
    return [row for path in sorted(paths) for row in pq.read_table(out / path).to_pylist()]


def number_of(row: dict[str, Any]) -> int:
    (number,) = re.findall(r"\d{3}", row["url"])
    return int(number)


@pytest.mark.parametrize("write", [as_parquet, as_folder, as_tar])
def test_every_hostile_input_ends_once_by_its_reason_and_is_told_so(write, micro_home, tmp_path):
    table = cases()
    (tmp_path / "corpus").mkdir()
    corpus, home = write(tmp_path / "corpus", table), tmp_path / "home"
    receipts = run_data_stages(home, corpus, micro_home)
    filtered = receipts["filter"]
    extra = 0 if write is as_parquet else 1
    assert filtered.counts.in_ == len(table) + extra
    assert filtered.info.get("damaged", {}) == ({DAMAGED_JSON: 1} if extra else {})

    kept, rejects = rows(home, filtered, "filtered"), rows(home, filtered, "rejects")
    fates = {number_of(row): None for row in kept} | {number_of(row): row["reason"] for row in rejects}
    assert len(kept) + len(rejects) == len(fates) == filtered.counts.in_
    expected = {case.number: case.expected for case in table} | ({len(table): None} if extra else {})
    assert fates == expected
    assert filtered.reasons == dict(sorted(Counter(filter(None, expected.values())).items()))

    captioned = rows(home, receipts["recaption"], "captioned")
    assert receipts["recaption"].counts.in_ == len(kept)
    assert len(captioned) + len(rows(home, receipts["recaption"], "rejects")) == len(kept)
    assert receipts["shard"].counts.kept == receipts["shard"].counts.in_ == len(captioned)
    index = home / "shard" / receipts["shard"].fingerprint / INDEX_NAME
    samples = {sample.key: sample for split in (TRAIN, HOLDOUT) for sample in read_split(index, split)}
    licences = Counter[str]()
    for row in captioned:
        meta, number = samples[row["key"]].meta, number_of(row)
        licence = LICENCES[number % len(LICENCES)] if number < len(table) else "?"
        licences[licence] += 1
        assert meta.get("license") == (None if licence == "?" else licence)
        assert meta.get("source") == ("the table" if number < len(table) else None)

    told(home, corpus, receipts)
    by_reason = {row["reason"]: row for row in rejects}
    for row in [*by_reason.values(), captioned[0]]:
        traced = next(one for one in trace(home, row["key"]) if one.key == row["key"])
        fate = traced.steps[-1].fate
        assert fate.startswith(f"rejected: {row['reason']}" if "reason" in row else "in ")
    paths = write_card(home, tmp_path / "card", name="hostile", snapshot=None, terms="x", url=None)
    card = paths[0].read_text()
    for licence, count in licences.items():
        assert f"| {'not said by the corpus' if licence == '?' else licence} | {count} |" in card


def told(home: Path, corpus: str, receipts: dict[str, Receipt]) -> None:
    """The page has every reason with its number, and for each an image or why there is none."""
    config = RunConfig(corpus=corpus)
    plan = []
    for name, made in receipts.items():
        out = home / name / made.fingerprint
        plan.append(Planned(stage_named(name), "default", State.FRESH, "", out.name, out, made))
    page = write_run_report(home, config, plan).read_text()
    assert "<script" not in page and not set("\0\x1b\u202e") & set(page)
    for reason, count in receipts["filter"].reasons.items():
        assert re.search(rf"<code>{reason}</code> <span class=\"number\">{count} record", page), reason
    shown = rows(home, receipts["filter"], "reject_examples")
    assert {row["reason"] for row in shown} - {None} == receipts["filter"].reasons.keys()
    with_image = {row["reason"] for row in shown if row["thumbnail"]}
    assert with_image >= {"image_aspect", "image_too_small", "image_blank", "alt_too_long", "alt_markup"}
    assert not with_image & {"image_broken", "image_missing", "image_too_large", "image_format"}
    for row in shown:
        if row["thumbnail"]:
            assert max(Image.open(io.BytesIO(row["thumbnail"])).size) <= 96
