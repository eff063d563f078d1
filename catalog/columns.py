"""What a catalog is made of."""

from typing import NamedTuple

from .codes import Codes
from .lookup import Positions
from .texts import OptionalTexts, TextColumn


class Columns(NamedTuple):
    """I items, in catalog order."""

    item_ids: TextColumn
    identifiers: Codes
    titles: OptionalTexts
    position: Positions
