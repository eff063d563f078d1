"""The machine at hand: processors, memory, control groups, GPUs."""
