"""Runs over files of any length: what they have done, and how they go on."""
