"""Engines that give NaN."""

import numpy as np

from specbeam.engines.bundle.items import Bundle
from tiny_bundle import Tiny


def marked(tiny: Tiny) -> tuple[int, str, set[str]]:
    """A token that ends identifiers (so that it is in prompts only), an item that has it, and all that have."""
    bundle = Bundle.open(tiny.bundle)
    catalog, trie = bundle.catalog(), bundle.trie()
    item = catalog.item_ids[3]
    token = int(trie.item_tokens()[3, -1])
    ids = trie.item_tokens()[:, -1]
    return token, item, {catalog.item_ids[i] for i in np.flatnonzero(ids == token)}
