"""TensorRT: its plans, their profiles, and the library behind them."""
