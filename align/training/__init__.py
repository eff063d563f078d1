"""The one training loop, and what `train` needs: models, samples, their order, and work that can go on."""
