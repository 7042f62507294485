"""The command, called in this process."""

from collections.abc import Callable
from typing import NamedTuple

import pytest

from dags.cli.app import main


class Said(NamedTuple):
    """What a command left on the terminal."""

    status: int
    out: str
    err: str


@pytest.fixture
def straightshot(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """`straightshot(*words)` -> its exit status, stdout and stderr."""

    def call(*words: object) -> Said:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main([str(word) for word in words])
        out, err = capsys.readouterr()
        return Said(int(end.value.code or 0), out, err)

    return call
