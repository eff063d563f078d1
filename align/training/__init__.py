"""The one training loop, and what `train` needs: decoders, samples, their order, and work that can go on."""
