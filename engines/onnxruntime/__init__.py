"""ONNX Runtime: on the CPU, and with everything on a device."""
