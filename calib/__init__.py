"""Quantization of exported graphs: what real searches send through them, and the integers that represent it."""
