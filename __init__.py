"""SpecBeam: speculative beam search for generative recommendation."""

__version__ = "0.1.0"
