"""HTTP on top of the serving core."""
