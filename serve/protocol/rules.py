"""What a server demands of every request, whatever else its settings hold."""

from typing import Literal, Protocol

UnknownItems = Literal["drop", "reject"]


class RequestLimits(Protocol):
    """How much a request may ask for."""

    @property
    def items(self) -> int:
        """Of a history, at most."""

    @property
    def k(self) -> int | None:
        """The longest list; None: the longest that the model serves."""

    @property
    def entries(self) -> int:
        """Histories in one request, at most."""

    @property
    def timeout_ms(self) -> int:
        """Until an answer, at most, whatever a request asks for."""


class Rules(Protocol):
    """A server's settings, as far as requests are concerned."""

    @property
    def limits(self) -> RequestLimits:
        """How much a request may ask for."""

    @property
    def unknown_items(self) -> UnknownItems:
        """Items of histories that the catalog lacks: left out and counted, or the request is refused."""
