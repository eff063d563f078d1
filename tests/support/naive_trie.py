"""The trie the slow way, a node at a time."""

from specbeam.catalog.trie import ItemTrie


def path(trie: ItemTrie, node: int) -> list[int]:
    """The nodes from below the root to a node."""
    nodes: list[int] = []
    while node > 0:
        nodes, node = [node, *nodes], int(trie.parent[node])
    return nodes


def children(trie: ItemTrie, node: int) -> list[int]:
    """A node's children."""
    first = int(trie.first_child[node])
    return list(range(first, first + int(trie.child_count[node])))
