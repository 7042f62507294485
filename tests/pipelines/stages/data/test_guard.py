"""Records that crash, stall or exhaust the process which examines them: each is quarantined, alone."""

import io
import os
import signal
import struct
import zlib
from contextlib import closing

import numpy as np
from PIL import Image

from components.corpus.fragments import RawRecord
from components.corpus.images import ImageRejected, ImageRules, open_image
from components.corpus.rejection import Rejection
from components.corpus.schemas import Reason
from components.filtering.examine import Rejected
from pipelines.stages.data.guard import Attempts, GuardedExaminer, RecordLimits, cpu_limit

MIB = 2**20


def large_png(side: int) -> bytes:
    """A few kilobytes that take a second to decode and hundreds of megabytes to hold."""
    packed = zlib.compress((b"\0" + b"\x0f" * ((side + 7) // 8)) * side, 9)
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)),
        (b"IDAT", packed),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def small_png() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)).save(
        buffer, "PNG"
    )
    return buffer.getvalue()


def decode(record: RawRecord, key: str) -> Rejected:
    """What the filter does of interest here; some texts crash or hang as no decoder is known to."""
    if record.alt_text == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    while record.alt_text == "hang":
        pass
    reason = Rejection(Reason.ERRORED, "opened")
    try:
        open_image(record.image, ImageRules())
    except ImageRejected as error:
        reason = error.rejection
    return Rejected(key, reason, record.alt_text, record.url)


def outcome(examined: object) -> tuple[str, str]:
    assert isinstance(examined, Rejected)
    return examined.rejection.reason.value, examined.rejection.detail


def test_a_record_that_ends_or_stalls_its_process_is_quarantined_and_its_neighbours_are_not():
    good, large = RawRecord(small_png(), "good", None), RawRecord(large_png(5000), "large", None)
    opened = ("errored", "opened")
    with closing(GuardedExaminer(decode, RecordLimits(cpu_seconds=0.5, memory_bytes=64 * MIB))) as examine:
        assert outcome(examine(good, "1")) == opened
        assert outcome(examine(large, "2")) == ("quarantined", "decoding it takes more memory than there is")
        assert outcome(examine(good, "3")) == opened
        crash, hang = RawRecord(b"", "crash", "u"), RawRecord(b"", "hang", "u")
        assert outcome(examine(crash, "4")) == ("quarantined", "ended its process: SIGSEGV")
        assert outcome(examine(hang, "5")) == ("quarantined", "not done after 0.5 s of CPU time")
        assert outcome(examine(good, "6")) == opened
    assert outcome(decode(large, "7")) == opened, "without limits it is an image like any other"


def test_a_process_over_its_limit_of_cpu_time_ends_within_a_decode():
    record = RawRecord(large_png(5000), None, None)
    if (child := os.fork()) == 0:
        with cpu_limit(0.05):
            decode(record, "")
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGPROF


def test_a_fragment_is_guarded_once_a_worker_died_in_it(tmp_path):
    first = Attempts(tmp_path, "run-1")
    assert not first.begin("a")
    first.end("a")
    assert not first.begin("b"), "a finished fragment says nothing of the next"
    assert first.begin("b"), "the worker died in it"
    first.end("b")
    assert not first.begin("c") and first.begin("c")
    assert first.begin("d"), "where two workers died, there are more such records"
    second = Attempts(tmp_path, "run-2")
    assert second.begin("d"), "it was under way when the other run ended"
    assert not second.begin("e"), "but what happened in that run says nothing of other fragments"
