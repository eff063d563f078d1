"""Why a request that was asked rightly is not answered."""

from ..catalog.errors import SpecBeamError


class ServeError(SpecBeamError):
    """A request is not answered, though nothing is wrong with it."""


class Overloaded(ServeError):
    """As many requests wait as may; `retry_after` seconds from now there is probably room."""

    def __init__(self, waiting: int, retry_after: float) -> None:
        super().__init__(
            f"{waiting} requests are waiting, which is as many as may. Ask again in {retry_after:.1f} s, or serve with "
            "a longer queue."
        )
        self.retry_after = retry_after


class TooLarge(ServeError):
    """The request's search would take more memory than there is for any."""


class DeadlinePassed(ServeError):
    """The request's deadline passed before its list was found."""


class Cancelled(ServeError):
    """The request was cancelled by whoever asked it."""


class Closed(ServeError):
    """Whoever serves is closed, or closes."""
