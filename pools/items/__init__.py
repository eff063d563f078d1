"""Pools of items: what followed what in earlier histories."""
