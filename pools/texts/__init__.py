"""Pools of earlier texts: sorted suffixes, looked up and drafted from."""
