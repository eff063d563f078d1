"""The graphs of a role: what decodes and, where an encoder reads prompts, that one beside it."""

from pathlib import Path

from ..engines.bundle.facts import ENCODER

READ = "read_key_values."  # what an encoder gives and a decoder takes
ENCODERS = (
    "encoder."  # what names of an encoder's values and parts begin with among its role's: all graphs number alike
)


def graphs_of(graph: Path) -> list[Path]:
    """The graph that decodes, and the encoder's beside it where there is one."""
    encoder = graph.with_name(ENCODER)
    return [graph, encoder] if encoder.is_file() else [graph]


def within(graph: Path) -> str:
    """What names of a graph's values begin with among those of its role."""
    return ENCODERS if graph.name == ENCODER else ""
