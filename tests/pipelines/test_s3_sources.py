"""Corpora, labelled sets and uploads on S3 are read as on a disk, and hashed again when an e-tag changes."""

import boto3
import pytest

from components.corpus import readers
from components.corpus.labelled import read_labelled
from components.corpus.readers import open_corpus, read_fragment
from components.toyworld.web import write_toy_web
from dags.sensors import uploads
from pipelines.config import load_config
from pipelines.errors import ConfigError
from pipelines.sources import find_source
from tests.conftest import BUCKET


@pytest.fixture(scope="module")
def web(tmp_path_factory):
    return write_toy_web(tmp_path_factory.mktemp("web"), 20, 5, 12)


def upload(folder, target) -> None:
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        key = (target / file.relative_to(folder).as_posix()).path.partition("/")[2]
        boto3.client("s3").upload_file(str(file), BUCKET, key)


def test_a_corpus_and_a_labelled_set_are_as_on_the_disk(s3, web, tmp_path):
    upload(web.web.parent, s3)
    here, there = open_corpus(f"parquet:{web.web}"), open_corpus(f"parquet:{s3 / web.web.name}")
    assert there.digest() == here.digest()
    records = [list(read_fragment(fragment)) for fragment in there.fragments]
    assert records == [list(read_fragment(fragment)) for fragment in here.fragments]
    labelled = s3 / web.labelled.name
    assert read_labelled(str(labelled), 0.25) == read_labelled(str(web.labelled), 0.25)

    def found(name: str, labelled: object) -> object:
        corpus = f"parquet:{s3 / web.web.name}"
        config = load_config("micro", [f"annotators.labelled={labelled}"], corpus=corpus)
        return find_source(name, config, tmp_path)

    assert found("corpus", labelled).digest == here.digest()
    assert found("labelled", labelled).location == str(labelled)
    assert found("labelled", labelled).digest == found("labelled", web.labelled).digest


def test_files_on_s3_are_hashed_again_only_when_their_e_tags_change(s3, web, tmp_path, monkeypatch):
    upload(web.web, s3)
    config = load_config("micro", [], corpus=f"parquet:{s3}")
    hashed: list[str] = []
    digest = readers.file_digest
    monkeypatch.setattr(readers, "file_digest", lambda path: hashed.append(path) or digest(path))
    first = find_source("corpus", config, tmp_path)
    files = len(hashed)
    assert files == len(list(web.web.glob("*.parquet"))) > 0
    assert find_source("corpus", config, tmp_path) == first and len(hashed) == files
    upload(web.web, s3 / "more")
    assert find_source("corpus", config, tmp_path).digest != first.digest and len(hashed) == 3 * files


def test_the_sensor_sees_uploads_come_and_change(s3, web):
    with pytest.raises(ConfigError, match="no folder at s3://"):
        uploads(str(s3))
    upload(web.web, s3 / "monday")
    (monday,) = uploads(str(s3))
    assert (monday.name, monday.uri, monday.marked) == ("monday", f"parquet:{s3}/monday", False)
    upload(web.web, s3 / "monday" / "more")
    (s3 / "tuesday.parquet").write_bytes(next(web.web.glob("*.parquet")).read_bytes())
    (s3 / "monday" / "_SUCCESS").write_bytes(b"")
    monday_now, tuesday = uploads(str(s3))
    assert monday_now.marked and monday_now.listing != monday.listing
    assert tuesday.uri == f"parquet:{s3}/tuesday.parquet"


@pytest.mark.parametrize(
    ("corpus", "line"),
    [
        ("parquet:s3://no-such-bucket/web", "s3://no-such-bucket/web"),
        ("parquet:gs://team/web", "Please install gcsfs"),
        ("folder:nfs4://team/web", "Unsupported filesystem: 'nfs4'; local paths and s3:// can"),
    ],
)
def test_what_cannot_be_reached_is_one_line(s3_server, tmp_path, corpus, line):
    with pytest.raises(ConfigError) as raised:
        find_source("corpus", load_config("micro", [], corpus=corpus), tmp_path)
    assert line in str(raised.value) and "\n" not in str(raised.value)


def test_missing_credentials_are_one_line(s3_server, tmp_path, monkeypatch):
    import s3fs

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(ConfigError, match="Unable to locate credentials"):
        find_source("corpus", load_config("micro", [], corpus="parquet:s3://team/web"), tmp_path)
    s3fs.S3FileSystem.clear_instance_cache()
