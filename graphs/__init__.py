"""Transforms and checks of ONNX graphs, without torch."""

EXTERNAL_BYTES = 1 << 30  # weights beyond this lie beside the graph: a protobuf holds 2 GiB at most
