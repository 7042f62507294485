"""Why a URL has no image: raised inside the package, a Rejection outside of it."""

from components.corpus.rejection import Rejection
from components.corpus.schemas import Reason
from components.errors import one_line

DETAIL_CHARACTERS = 160  # of another library's error, or of what a server sent


class FetchRejected(Exception):
    """A URL that gives no image. `rejection` says why.

    answered: whether some server was reached; when none is for long, the network is gone. again: whether
    another try may end otherwise. wait: the seconds that the server asks for before it.
    """

    def __init__(
        self,
        reason: Reason,
        detail: str,
        *,
        answered: bool = True,
        again: bool = False,
        wait: float = 0.0,
    ) -> None:
        detail = one_line(detail.encode("utf-8", "replace").decode())  # a header may hold any bytes
        super().__init__(f"{reason}: {detail}")
        self.rejection = Rejection(reason, detail)
        self.answered, self.again, self.wait = answered, again, wait
