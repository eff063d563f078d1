"""How a list came about, as a picture: one at a time, as drawing takes the processor from those who serve."""

from threading import Lock
from typing import final

from ...catalog.extras import install_module
from ...evaluate.explain import Explanation, explain
from ...runtime.search.filters import ItemFilter
from ..editions import Edition
from ..protocol.asking import Asked, about, verification_of
from ..protocol.refusals import Refused

K, MOST = 10, 50  # items of a list that is drawn, where nobody says how many, and at most: more cannot be read
PACKAGES = ("altair", "vl_convert")


@final
class Pictures:
    """Draws. Safe to share between threads."""

    def __init__(self) -> None:
        self._drawing = Lock()

    def draw(self, edition: Edition, asked: Asked) -> bytes:
        """An SVG of how the list came about that is asked for; when it is wanted, and how much, does not matter.

        Raises `Refused`: 429 while another picture is drawn, and 501 with the command that installs what lacks; and
        what `AsyncRecommender.submit` does for what cannot be asked.
        """
        if not self._drawing.acquire(blocking=False):
            raise Refused(429, "another picture is being drawn, and they are drawn one at a time.", retry_after=1.0)
        try:
            return _drawn(_explanation(edition, asked))
        finally:
            self._drawing.release()


def _explanation(edition: Edition, asked: Asked) -> Explanation:
    k = K if asked.k is None else asked.k
    if k > MOST:
        raise Refused(400, f"got {k}; expected at most {MOST} items, as larger pictures cannot be read.", field="k")
    recommender = edition.recommender
    if (verification := verification_of(asked, recommender.verification)) is not None:
        with about("mode"):
            recommender = recommender.verifying(verification)
    item_filter = ItemFilter(asked.allow, asked.deny or ()) if asked.allow is not None or asked.deny else None
    return explain(
        recommender, asked.items, k, user=asked.user, item_filter=item_filter,
        exclude_history=bool(asked.exclude_history),
    )  # fmt: skip


def _drawn(explanation: Explanation) -> bytes:
    try:
        from ...evaluate.tree_picture import chart, drawn
    except ModuleNotFoundError as error:
        if error.name not in PACKAGES:
            raise
        raise Refused(
            501, f"pictures need packages that this server lacks. Run: {install_module(error.name)}"
        ) from None
    return drawn(chart(explanation), ".svg")
