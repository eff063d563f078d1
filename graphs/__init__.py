"""Transforms and checks of ONNX graphs, without torch."""
