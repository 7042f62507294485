"""The command, called in this process."""

from collections.abc import Callable
from typing import NamedTuple

import pytest

from dags.cli.app import main


class Result(NamedTuple):
    """What a command left on the terminal."""

    status: int
    out: str
    err: str


@pytest.fixture
def straightshot(capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """`straightshot(*arguments)` -> its exit status, stdout and stderr."""

    def call(*arguments: object) -> Result:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main([str(word) for word in arguments])
        out, err = capsys.readouterr()
        return Result(int(end.value.code or 0), out, err)

    return call
