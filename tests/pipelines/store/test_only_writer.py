"""HOME has one writer: only durable.py renames, flushes and names temporaries, for everybody else."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
WRITER = "components/durable.py"
# A rename, a flush to the disk, a temporary's name: what a second way of writing files whole would need.
SIGNS = {
    "os.replace": re.compile(r"\bos\.(?:replace|rename|renames|link)\("),
    "Path.replace": re.compile(r"\b(?:temporary|partial|path|folder|claim)\.(?:replace|rename)\("),
    "os.fsync": re.compile(r"\bfsync\("),
    "a temporary's name": re.compile(r"""["'{.]tmp-"""),
    "shutil.move": re.compile(r"\bshutil\.move\("),
}


def signs_in(text: str) -> set[str]:
    return {name for name, pattern in SIGNS.items() if pattern.search(text)}


def test_no_other_module_writes_files_whole_in_its_own_way():
    others = {}
    for package in ("components", "pipelines", "dags"):
        for path in (ROOT / package).rglob("*.py"):
            name = path.relative_to(ROOT).as_posix()
            if name != WRITER and (signs := signs_in(path.read_text())):
                others[name] = signs
    assert others == {}


def test_the_signs_are_those_of_the_one_writer():
    assert signs_in((ROOT / WRITER).read_text()) >= {"os.fsync", "Path.replace", "a temporary's name"}
    assert signs_in("os.replace(a, b)") == {"os.replace"} and signs_in("text.replace('a', 'b')") == set()


def test_writing_at_once_over_a_file_of_home_is_left_to_the_writer():
    """`home / X` is never written in place: it would be seen half-written."""
    in_place = re.compile(r"\bhome / [^)\n]*\)\.(?:write_text|write_bytes|open\([\"'][wa])")
    for package in ("components", "pipelines", "dags"):
        for path in (ROOT / package).rglob("*.py"):
            assert not in_place.search(path.read_text()), path
