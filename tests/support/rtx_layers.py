"""The layers that TensorRT for RTX compiles a graph to, as its builder's log lists them.

Run as a program, since TensorRT keeps the first logger of a process: GRAPH LAYERS, and for every profile JSON of
{input: [least, typical, most]}. The list is written to the file LAYERS; nothing where the graph was not compiled.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from specbeam.engines.tensorrt.layers import Layer, layers_of_log
from specbeam.engines.tensorrt.profiles import Profile


def compiled(graph: Path, profiles: Sequence[Profile], capability: str) -> tuple[Layer, ...]:
    """What a graph becomes for GPUs of one compute capability, such as "8.6"; empty where it is not compiled."""
    output = graph.with_name(f"{graph.name}.layers")
    shapes = [json.dumps(dict(profile.shapes)) for profile in profiles]
    command = [sys.executable, __file__, str(graph), str(output), capability.replace(".", ""), *shapes]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return layers_of_log(output.read_text())


def main(graph: str, output: str, capability: str, *profiles: str) -> None:
    import tensorrt_rtx as trt

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.listed = ""

        def log(self, severity: Any, msg: str) -> None:
            if msg.startswith("Layers:"):
                self.listed = msg

    logger = Logger()
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    assert parser.parse_from_file(graph), parser.get_error(0).desc()
    for layer in map(network.get_layer, range(network.num_layers)):
        if layer.type == trt.LayerType.ATTENTION_OUTPUT:
            layer.__class__ = trt.IAttentionOutputLayer  # its Python API tells kinds of layers apart in this way alone
            layer.attention.decomposable = True
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{capability}"), 0)
    for shapes in map(json.loads, profiles):
        profile = builder.create_optimization_profile()
        for name, ranges in shapes.items():
            profile.set_shape(name, *ranges)
        config.add_optimization_profile(profile)
    builder.build_serialized_network(network, config)
    Path(output).write_text(logger.listed)


if __name__ == "__main__":
    main(*sys.argv[1:])
