"""What all routes share: the settings, the models, the metrics, and whether it serves yet."""

from dataclasses import dataclass, field
from hmac import compare_digest
from typing import Literal, final, get_args

from ...catalog import checks
from ...catalog.errors import OptionError
from ..models import Models
from ..protocol.refusals import Refused
from ..protocol.rules import UnknownItems
from .limits import Limits
from .logs import Log
from .metrics import Metrics

Phase = Literal["loading", "ready", "stopping"]
LEAST_TOKEN = 16  # characters


@dataclass(frozen=True)
class HttpSettings:
    """How models are served over HTTP. Raises `OptionError` for what cannot be."""

    limits: Limits = field(default_factory=Limits)
    unknown_items: UnknownItems = "drop"  # of histories: left out and counted, or the request is refused
    token: str | None = field(default=None, repr=False)  # that clients must send; None: none

    def __post_init__(self) -> None:
        checks.instance(self.limits, "limits", Limits, "such as Limits(items=100)")
        checks.choice(self.unknown_items, "unknown_items", get_args(UnknownItems))
        if self.token is not None and not (
            len(self.token) >= LEAST_TOKEN and self.token.isascii() and self.token.isprintable()
            and " " not in self.token
        ):  # fmt: skip
            raise OptionError(
                f"the token cannot be used; expected at least {LEAST_TOKEN} printable ASCII characters without spaces, "
                "such as `openssl rand -hex 32` writes."
            )


@final
class Service:
    """One server's state."""

    def __init__(self, settings: HttpSettings, models: Models, metrics: Metrics, log: Log | None = None) -> None:
        """metrics: the observer that `models` were made with."""
        self.settings, self.models, self.metrics, self.log = settings, models, metrics, log or Log()
        self.phase: Phase = "loading"
        self.in_flight = 0  # HTTP requests
        metrics.watch(models)

    def check_ready(self) -> None:
        """Raises `Refused`, with 503, while models are loaded. A server that stops answers what still reaches it."""
        if self.phase == "loading" or not self.models.names:
            raise Refused(503, "no model is served yet.", retry_after=1.0)

    def check_token(self, authorization: str | None) -> None:
        """Raises `Refused`, with 401, for a header that does not hold the token."""
        if self.settings.token is None:
            return
        scheme, _, token = (authorization or "").partition(" ")
        same = compare_digest(token.strip().encode(), self.settings.token.encode())
        if not (same and scheme.lower() == "bearer"):
            raise Refused(
                401, "expected the header Authorization: Bearer TOKEN, with this server's token.",
                headers={"WWW-Authenticate": "Bearer"},
            )  # fmt: skip
