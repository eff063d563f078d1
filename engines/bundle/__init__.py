"""The bundle on disk: what it holds, for items and for texts, and the proof that it is as it was written."""
