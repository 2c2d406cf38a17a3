"""The ranker: examples as tensors, the net with its heads and loss, and checkpoints to predict with."""
