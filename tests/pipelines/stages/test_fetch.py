"""The fetch stage: every row of a list ends once, in the same bytes, and nothing is asked for twice."""

import csv
import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.corpus.readers import open_corpus, read_fragment
from components.corpus.schemas import REJECTS, Reason
from components.fetching import url_list
from pipelines.config import RunConfig
from pipelines.errors import ConfigError, StageFailed
from pipelines.execution.progress import Progress
from pipelines.graph import EVERY_STAGE
from pipelines.pipeline import Pipeline
from pipelines.planning.planned import State
from pipelines.records.trace import trace
from pipelines.retention.takedown import take_down
from pipelines.stage import SCRATCH, Input, run_stage
from pipelines.stages.fetch import STAGE, FetchConfig, corpus_uri
from pipelines.stages.filter import key_of
from pipelines.store.receipts import Counts, Receipt
from pipelines.withdrawals import Withdrawal
from tests.components.fetching.hostile_server import Site, png, serving
from tests.pipelines.one_by_one import OneByOne

CONFIG = FetchConfig(
    allow_networks=("127.0.0.0/8",), tries=1, backoff=0.01, rows_per_part=4, robots=False, tdmrep=False
)


@pytest.fixture(scope="module")
def server():
    with serving() as server:
        yield server


def write_list(path: Path, rows: list[dict]) -> str:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)
    return f"urls:{path}"


def run(home: Path, uri: str, config: FetchConfig = CONFIG, engine: OneByOne | None = None) -> Receipt:
    digest = url_list.open_url_list(uri).digest()
    return run_stage(
        STAGE,
        config,
        {"corpus": (Input("corpus", uri, digest),)},
        home=home,
        snapshot="default",
        engine=engine or OneByOne(),
        progress=Progress(quiet=True),
    )


def output(home: Path, receipt: Receipt) -> Path:
    return home / "fetch" / receipt.fingerprint


def table(home: Path, receipt: Receipt, folder: str) -> pa.Table:
    paths = sorted(e.path for e in receipt.files if e.path.startswith(f"{folder}/"))
    return pa.concat_tables([pq.ParquetFile(output(home, receipt) / path).read() for path in paths])


def rows_of(site: Site) -> list[dict]:
    return [
        {"url": f"{site.url}/image/1", "alt_text": "a blue plate", "license": "CC0"},
        {"url": f"{site.url}/image/1#top", "alt_text": "a plate", "license": ""},  # the same, in other words
        {"url": f"{site.url}/html", "alt_text": "a login"},
        {"url": f"{site.url}/image/1", "alt_text": "a blue plate"},
        {"url": "", "alt_text": "a text without a picture"},
        {"url": "ftp://example.com/a.png", "alt_text": "an old server"},
        {"url": "ftp://example.com/a.png", "alt_text": "an old server"},
        {"url": f"{site.url}/status/404", "alt_text": "gone"},
        {"url": f"{site.url}/image/2", "alt_text": ""},
        {"url": f"{site.url}/image/3", "alt_text": "x" * 200_000},
    ]


def test_every_row_ends_as_an_image_or_with_its_reason(server, tmp_path):
    site = server.site()
    receipt = run(tmp_path, write_list(tmp_path / "list.csv", rows_of(site)))
    assert receipt.counts == Counts(**{"in": 10, "kept": 4, "rejected": 6, "errored": 0})
    assert receipt.reasons == {"fetch_duplicate": 1, "fetch_no_image": 1, "fetch_status": 1, "fetch_url": 3}
    assert site.times("/image/1") == 1  # for both of its texts

    fetched = table(tmp_path, receipt, "fetched")
    assert fetched.column_names == ["key", "sha256", "image", "url", "alt_text", "license"]
    assert fetched["license"].to_pylist() == ["CC0", None, None, None]
    assert fetched["image"].to_pylist() == [png(1), png(1), png(2), png(3)]
    rejects = table(tmp_path, receipt, "rejects")
    assert rejects.schema == REJECTS
    assert set(rejects["stage"].to_pylist()) == {"fetch"}
    details = dict(zip(rejects["url"].to_pylist(), rejects["detail"].to_pylist(), strict=True))
    assert details[f"{site.url}/status/404"] == "HTTP 404"

    (traced,) = trace(tmp_path, f"{site.url}/status/404")
    assert [step.fate for step in traced.steps] == ["rejected: fetch_status (HTTP 404)"]

    # The filter reads it as any corpus, and knows each record by the same key.
    location = str(output(tmp_path, receipt))
    corpus = open_corpus(corpus_uri(Input("fetch", location, receipt.digest, receipt)))
    records = [record for fragment in corpus.fragments for record in read_fragment(fragment)]
    assert [record.alt_text for record in records] == ["a blue plate", "a plate", None, "x" * 200_000]
    assert [key_of(record, "default") for record in records] == fetched["key"].to_pylist()
    assert not (output(tmp_path, receipt) / SCRATCH).exists()


def test_the_bytes_do_not_depend_on_the_order_of_the_work(server, tmp_path, monkeypatch):
    monkeypatch.setattr(url_list, "BYTES_PER_GROUP", 300)
    sites = [server.site(host=f"127.0.0.{n}") for n in range(1, 5)]
    rows = [{"url": f"{s.url}/image/{n}", "alt_text": f"{n}"} for n in range(9) for s in sites]
    uri = write_list(tmp_path / "list.csv", rows)
    receipts = [run(tmp_path / str(b), uri, engine=OneByOne(backwards=b)) for b in (False, True)]
    assert receipts[0].digest == receipts[1].digest
    assert receipts[0].counts.kept == 36
    folder = output(tmp_path / "False", receipts[0])
    paths = sorted(e.path for e in receipts[0].files if e.path.startswith("fetched/"))
    urls_of = {path: pq.read_table(folder / path)["url"].to_pylist() for path in paths}
    assert len(urls_of) > len(sites)
    for site in sites:  # in the list's order, and never in two groups
        of_site = [f"{site.url}/image/{n}" for n in range(9)]
        assert [url for urls in urls_of.values() for url in urls if url in of_site] == of_site
        holding = {path.split("-")[1] for path, urls in urls_of.items() if not set(urls).isdisjoint(of_site)}
        assert len(holding) == 1


RUN = """
import sys
from pathlib import Path
from pipelines.execution.progress import Progress
from pipelines.stage import Input, run_stage
from pipelines.stages.fetch import STAGE, FetchConfig
from tests.pipelines.one_by_one import OneByOne
home, uri, digest, config = sys.argv[1:]
inputs = {"corpus": (Input("corpus", uri, digest),)}
config = FetchConfig.model_validate_json(config)
progress = Progress(quiet=True)
run_stage(STAGE, config, inputs, home=Path(home), snapshot="default", engine=OneByOne(), progress=progress)
"""


def test_killed_it_asks_for_nothing_again_that_it_had(server, tmp_path):
    site = server.site()
    rows = [{"url": f"{site.url}/image/{n}", "alt_text": f"{n}"} for n in range(30)]
    uri = write_list(tmp_path / "list.csv", rows)
    slow = CONFIG.model_copy(update={"connections_per_host": 1, "host_delay": 0.05}).model_dump_json()
    digest = url_list.open_url_list(uri).digest()
    process = subprocess.Popen([sys.executable, "-c", RUN, str(tmp_path / "killed"), uri, digest, slow])
    deadline = time.monotonic() + 400
    while len(site.asked) < 10 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    before = len(site.asked)
    assert 10 <= before < 30
    receipt = run(tmp_path / "killed", uri)
    assert receipt.counts.kept == 30
    assert len(site.asked) <= 31  # the one that was under way is asked for again
    assert receipt.digest == run(tmp_path / "whole", uri).digest


def test_a_list_of_which_nothing_comes_fails_and_is_asked_for_again(server, tmp_path):
    site = server.site()
    uri = write_list(tmp_path / "list.csv", [{"url": f"{site.url}/flaky/1", "alt_text": "later"}])
    with pytest.raises(
        StageFailed, match=r"none of 1 URLs gave an image \(fetch_status 1\), such as .*HTTP 503"
    ):
        run(tmp_path, uri)
    assert run(tmp_path, uri).counts.kept == 1


def test_without_a_network_it_ends_and_believes_nothing(server, tmp_path):
    site = server.site()
    closed = "http://127.1.0.{}:9/{}.png"
    rows = [{"url": closed.format(n % 20, n), "alt_text": "away"} for n in range(60)]
    uri = write_list(tmp_path / "list.csv", [*rows, {"url": f"{site.url}/image/1", "alt_text": "there"}])
    config = CONFIG.model_copy(update={"connections": 1, "connections_per_host": 64, "rows_per_part": 100})
    with pytest.raises(StageFailed, match=r"no server answered the last .* URLs.*is the network there"):
        run(tmp_path, uri, config)
    assert not list(tmp_path.glob("fetch/*/parts/*"))
    # Where some server answers, those that do not are dead.
    uri = write_list(tmp_path / "fewer.csv", [*rows[:5], {"url": f"{site.url}/image/1", "alt_text": "there"}])
    assert run(tmp_path, uri, config).reasons == {Reason.FETCH_UNREACHABLE: 5}


def of_stages(config: RunConfig, home: Path) -> Pipeline:
    """The pipeline with the real fetch, and stages that write one line after it."""

    def write_line(work):
        names = {name: [item.digest for item in items] for name, items in work.inputs.items()}
        return [work.parts.write("line", {"line.json": lambda path: path.write_text(json.dumps(names))})]

    stages = tuple(s if s.name == "fetch" else replace(s, run=write_line) for s in EVERY_STAGE)
    return Pipeline(config, home, OneByOne(), stages=stages)


def test_the_stage_is_there_for_a_list_of_urls_alone(server, tmp_path):
    site = server.site()
    uri = write_list(
        tmp_path / "list.csv", [{"url": f"{site.url}/image/{n}", "alt_text": "a"} for n in range(3)]
    )
    annotators = {"judge": "hub/judge", "captioner": "hub/captioner"}
    config = RunConfig(corpus=uri, fetch=CONFIG, annotators=annotators)
    pipeline = of_stages(config, tmp_path)
    states = {planned.stage.name: planned.state for planned in pipeline.plan()}
    assert list(states)[:3] == ["annotators", "fetch", "filter"]
    with pytest.raises(ConfigError, match="filter needs fetch"):
        pipeline.run_one("filter")
    fetched = pipeline.run_one("fetch")
    pipeline.run_one("annotators")
    filtered = pipeline.run_one("filter")
    assert filtered.receipt.inputs["fetch"] == [fetched.receipt.digest]
    assert "corpus" not in filtered.receipt.inputs
    assert [p.state for p in of_stages(config, tmp_path).plan()][:3] == [State.FRESH] * 3

    # Another way of asking is no other output; asking again gives the same bytes, and nothing after it runs.
    patient = config.model_copy(update={"fetch": CONFIG.model_copy(update={"tries": 9, "read_timeout": 99})})
    again = of_stages(patient, tmp_path).run_one("fetch", force=True)
    assert again.ran and again.receipt.digest == fetched.receipt.digest
    assert [p.state for p in of_stages(config, tmp_path).plan()][:3] == [State.FRESH] * 3

    # A takedown is the filter's affair; what holds the image is named.
    (path,) = fetched.path.glob("fetched/*.parquet")
    key = pq.read_table(path)["key"][1].as_py()
    taken = take_down(tmp_path, [Withdrawal(key, None)])
    assert [(holding.output.path, holding.records) for holding in taken.holdings] == [(fetched.path, 1)]
    states = {planned.stage.name: planned.state for planned in of_stages(config, tmp_path).plan()}
    assert (states["fetch"], states["filter"]) == (State.FRESH, State.STALE)

    corpus = config.model_copy(update={"corpus": f"parquet:{tmp_path}/list.parquet", "snapshot": "other"})
    pq.write_table(pa.table({"image": [png()], "alt_text": ["a"]}), tmp_path / "list.parquet")
    assert "fetch" not in [planned.stage.name for planned in of_stages(corpus, tmp_path).plan()]
