"""`straightshot trace` and `straightshot diff` on a finished micro run."""

import hashlib
import json

import pyarrow as pa
import pyarrow.parquet as pq


def rows(home, stage, folder):
    tables = [pq.read_table(path) for path in sorted((home / stage).glob(f"*/{folder}/*.parquet"))]
    return pa.concat_tables(tables).to_pylist()


def test_a_kept_record_is_followed_to_its_models_by_key_url_and_file(micro_home, straightshot, tmp_path):
    record = rows(micro_home, "recaption", "captioned")[5]
    image = tmp_path / "image.png"
    image.write_bytes(record["image"])
    traces = [
        json.loads(straightshot("trace", name, "--home", micro_home, "--json").out)
        for name in (record["key"], record["url"], image)
    ]
    assert traces[0] == traces[1] == traces[2]
    (trace,) = traces[0]
    assert (trace["key"], trace["url"]) == (record["key"], record["url"])
    filtered, captioned, shard = trace["steps"]
    assert filtered["fate"] == captioned["fate"] == "kept"
    assert filtered["facts"]["sha256"] == hashlib.sha256(record["image"]).hexdigest()
    assert captioned["facts"]["caption_long"] == record["caption_long"]
    assert "alt_text" not in captioned["facts"]  # as it was
    assert shard["fate"].startswith("in ") and ".tar, to " in shard["fate"]
    assert [model.partition(" (")[0] for model in trace["models"]] == ["version 1 of 'straightshot'"]
    shown = straightshot("trace", record["key"], "--home", micro_home).out
    assert f"    caption_short: {record['caption_short']}\n" in shown


def test_a_rejected_record_ends_with_its_reason(micro_home, straightshot):
    record = next(row for row in rows(micro_home, "filter", "rejects") if row["detail"])
    (trace,) = json.loads(straightshot("trace", record["key"], "--home", micro_home, "--json").out)
    (step,) = trace["steps"]
    assert step["fate"] == f"rejected: {record['reason']} ({record['detail']})"
    assert trace["models"] == []


def test_what_no_output_has_is_one_line(micro_home, straightshot):
    status, _, err = straightshot("trace", "0" * 32, "--home", micro_home)
    assert (status, len(err.splitlines())) == (2, 1)
    assert "in any output of the filter" in err
    status, _, err = straightshot("diff", "--home", micro_home)
    assert status == 2
    assert "the only output of the filter for snapshot 'default'" in err


def test_the_shards_have_a_card_and_croissant_metadata(micro_home, straightshot, tmp_path):
    status, out, _ = straightshot("card", "-o", tmp_path / "card", "--name", "Shapes", "--home", micro_home)
    assert (status, out.split()) == (
        0,
        [str(tmp_path / "card" / name) for name in ("README.md", "croissant.json")],
    )
    captioned = rows(micro_home, "recaption", "captioned")
    assert f"{len(captioned):,} images with captions" in (tmp_path / "card" / "README.md").read_text()
    tars = {path.name: path for path in (micro_home / "shard").glob("*/*.tar")}
    metadata = json.loads((tmp_path / "card" / "croissant.json").read_text())
    listed = {entry["@id"]: entry["sha256"] for entry in metadata["distribution"] if "sha256" in entry}
    assert listed == {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in tars.items()}
    status, _, err = straightshot("card", "--home", tmp_path)
    assert (status, len(err.splitlines())) == (2, 1) and "no shards under" in err


def test_the_champion_has_a_card_and_a_lineage_that_leads_both_ways(micro_home, straightshot):
    card = straightshot("models", "--card", "champion", "--home", micro_home).out
    headings = [line for line in card.splitlines() if line.startswith("## ")]
    assert headings == [f"## {part}" for part in ("Data", "Captions", "Training", "Limits", "Evaluation")]
    (tars,) = (micro_home / "shard").glob("*/index.json")
    (filtered,) = (micro_home / "filter").glob("*/receipt.json")
    receipt = json.loads(filtered.read_text())
    assert f"{receipt['counts']['in']} records, {receipt['counts']['kept']} kept" in card
    said = straightshot("lineage", "champion", "--home", micro_home).out
    assert f"filter/{filtered.parent.name}" in said and f"shard/{tars.parent.name}" in said
    names = sorted(path.name for path in tars.parent.glob("*.tar"))
    assert sorted(line.split()[0] for line in said.splitlines() if ".tar" in line) == names
    for what in ("default", names[0], filtered.parent.name):
        status, out, _ = straightshot("lineage", what, "--home", micro_home)
        assert status == 0 and out.startswith("version 1 (challenger, champion)")
