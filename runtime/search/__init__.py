"""Beams over the item trie: scored, evaluated, verified."""
