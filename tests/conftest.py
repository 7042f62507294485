"""Fixtures shared by every test: the real corpora beside the checkout, when they are there."""

import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from upath import UPath
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

BUCKET = "team"
SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
MICRO_VARIABLE = "STRAIGHTSHOT_TEST_MICRO"
ALONE = ("test_killed_stages.py", "test_random_kills.py")  # minutes each, and share no fixture of a module


@pytest.fixture(scope="session", autouse=True)
def user_configuration(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The user's configuration folder for these tests and what they start: the real one stays as it is."""
    os.environ["XDG_CONFIG_HOME"] = str(tmp_path_factory.mktemp("configuration"))


@pytest.fixture(scope="module", autouse=True)
def no_ray_left() -> Iterator[None]:
    """Each module leaves no Ray in this process: the next one's engine would join it unasked."""
    yield
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        ray.shutdown()
        pytest.fail("a test of this module left Ray running: shut its engine down")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real corpora beside the checkout; skips where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the real corpora (../shared/data) are not beside this checkout")
    return SHARED_DATA


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling | None:
    """With `--dist loadfile` a file's tests go to one process; those of ALONE to any."""
    return _Scheduling(config, log) if config.getoption("dist") == "loadfile" else None


class _Scheduling(LoadFileScheduling):
    def _split_scope(self, nodeid: str) -> str:
        path = super()._split_scope(nodeid)
        return nodeid if path.endswith(ALONE) else path


@pytest.fixture(scope="session")
def micro_run(
    tmp_path_factory: pytest.TempPathFactory, worker_id: str, testrun_uid: str
) -> "subprocess.CompletedProcess[str]":
    """`straightshot run --preset micro` in a HOME of its own, once for all tests of all test processes.

    They leave the HOME as it is. Where MICRO_VARIABLE names a folder, it lies there, and a later run of the
    tests on the same code takes it over, if every file is still as the run left it.
    """
    own = tmp_path_factory.getbasetemp()
    session = (own if worker_id == "master" else own.parent) / "micro"
    folder = Path(os.environ.get(MICRO_VARIABLE) or session)
    folder.mkdir(exist_ok=True)
    home, result = folder / "home", folder / "result.json"
    with FileLock(folder / "lock"):  # of several test processes the first one runs it, the others wait
        made = json.loads(result.read_text()) if result.exists() else None
        if made is None or (made["session"] != testrun_uid and made["files"] != _files(home)):
            shutil.rmtree(home, ignore_errors=True)
            made = {"command": _run_micro(home), "files": _files(home)}
        result.write_text(json.dumps({**made, "session": testrun_uid}))
    done = subprocess.CompletedProcess(**made["command"])
    assert done.returncode == 0, done.stderr[-4000:]
    return done


def _files(home: Path) -> dict[str, list[int]]:
    """Path -> size and time of every file, but of what is only remembered of them."""
    paths = (path for path in sorted(home.rglob("*")) if path.is_file())
    names = {path.relative_to(home).as_posix(): path.stat() for path in paths}
    return {
        name: [state.st_size, state.st_mtime_ns]
        for name, state in names.items()
        if not name.startswith("cache/")
    }


def _run_micro(home: Path) -> dict[str, object]:
    """The command in a process of its own; what it left, as JSON takes it."""
    command = [sys.executable, "-m", "dags.cli.app", "run", "--preset", "micro"]
    done = subprocess.run(
        [*command, "--home", str(home), "--debug"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    names = ("args", "returncode", "stdout", "stderr")
    return {name: getattr(done, name) for name in names}


@pytest.fixture(scope="session")
def micro_home(micro_run: "subprocess.CompletedProcess[str]") -> Path:
    """The HOME of `micro_run`."""
    return Path(micro_run.args[micro_run.args.index("--home") + 1])


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of a server on loopback that answers as S3 does, its keys in this process's environment."""
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for every request
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        yield settings["AWS_ENDPOINT_URL"]
    server.stop()


@pytest.fixture
def s3(s3_server: str, request: pytest.FixtureRequest) -> UPath:
    """A folder of its own in a bucket of `s3_server`."""
    return UPath(f"s3://{BUCKET}/{hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]}")
