"""An examination that crashes, as a decoder may, on the record that is said to: for the process it is in.

In a module of its own: the process that examines under guard imports it.
"""

import os
import signal
from typing import Any

from components.corpus.fragments import RawRecord
from components.corpus.small_images import SmallImage, small_image
from components.filtering.examine import Kept, Rejected, examine

CRASHES = "a record whose bytes crash the decoder"


def examine_or_crash(record: RawRecord, key: str, **rules: Any) -> Kept | Rejected:
    if record.alt_text == CRASHES:
        os.kill(os.getpid(), signal.SIGSEGV)
    return examine(record, key, **rules)


def draw_or_crash(record: RawRecord, key: str) -> SmallImage:
    if record.image == CRASHES.encode():
        os.kill(os.getpid(), signal.SIGSEGV)
    return small_image(record.image)
