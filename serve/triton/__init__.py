"""NVIDIA's Triton Inference Server: a model of its Python backend, and the repository that it is loaded from."""
