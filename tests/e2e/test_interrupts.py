"""Ctrl-C in any command: one line, status 130, no process left, and no stage counted as failed."""

import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from dags.interrupts import keyboard_interrupts

START_SECONDS = 300.0
END_SECONDS = 60.0
LINE = "straightshot: interrupted; the same command goes on from here"


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        ("pipelines.status.status_of", ["status"]),
        ("dags.cli.generate.generate", ["generate", "a red circle"]),
        ("pipelines.registry.model_registry.models", ["models"]),
        ("dags.cli.doctor.print_findings", ["doctor"]),
    ],
)
def test_ctrl_c_ends_a_command_with_130_and_one_line(
    straightshot, tmp_path, monkeypatch, function, arguments
):
    def interrupted(*args, **settings):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(END_SECONDS)

    monkeypatch.setattr(function, interrupted)
    status, _, err = straightshot(*arguments, "--home", tmp_path)
    assert (status, err) == (130, LINE + "\n")


def test_within_a_stage_ctrl_c_is_a_keyboard_interrupt_whatever_dagster_made_of_it():
    def renamed(number, frame):
        raise SystemError("what Ray makes of Dagster's exception")

    before = signal.signal(signal.SIGINT, renamed)
    try:
        with pytest.raises(KeyboardInterrupt), keyboard_interrupts():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(END_SECONDS)
        assert signal.getsignal(signal.SIGINT) is renamed
    finally:
        signal.signal(signal.SIGINT, before)


def test_ctrl_c_while_ray_works_ends_the_run_and_everything_it_started(tmp_path):
    home = tmp_path / "home"
    command = [sys.executable, "-m", "dags.cli.app", "run", "--preset", "micro", "--home", str(home)]
    with (tmp_path / "log").open("wb") as log:
        run = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not any(events.stat().st_size for events in home.glob("annotators/*/scratch/**/*.jsonl")):
            assert run.poll() is None and time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.1)
        started = psutil.Process(run.pid).children(recursive=True)
        os.killpg(run.pid, signal.SIGINT)  # a terminal's Ctrl-C goes to every process of the group
        assert run.wait(END_SECONDS) == 130
    finally:
        run.kill()
    assert (tmp_path / "log").read_text().splitlines()[-1] == LINE
    _, alive = psutil.wait_procs(started, timeout=10)
    assert len(started) > 2 and not alive
    assert not list(Path(home).rglob("failed.json"))


def test_a_head_that_ends_while_it_is_asked_something_prints_nothing():
    settings, goaway, internal_error = 4, 7, 2  # of HTTP/2, RFC 9113
    last_words = struct.pack(">II", 0, internal_error) + b"Cancelling all calls"  # Ray's, as it ends

    def end_at_once(head):
        connection, _ = head.accept()
        with connection:
            for kind, payload in ((settings, b""), (goaway, last_words)):
                length = struct.pack(">I", len(payload))[1:]
                connection.sendall(length + struct.pack(">BBI", kind, 0, 0) + payload)
            connection.recv(1 << 16)

    code = (
        "import sys, dags.cli.app as app\n"
        "try: app.main(['--help'])\n"
        "except SystemExit: import grpc\n"
        "call = grpc.insecure_channel(sys.argv[1]).unary_unary('/head/CheckAlive')\n"
        "try: call(b'', timeout=2)\n"
        "except grpc.RpcError as error: print(error.code())"
    )
    with socket.create_server(("127.0.0.1", 0)) as head:
        threading.Thread(target=end_at_once, args=(head,), daemon=True).start()
        address = f"127.0.0.1:{head.getsockname()[1]}"
        ended = subprocess.run(
            [sys.executable, "-c", code, address], check=False, capture_output=True, text=True, timeout=60
        )
    assert "StatusCode" in ended.stdout
    assert ended.stderr == ""
