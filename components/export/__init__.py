"""Makes servable files of a checkpoint, and proves that they predict what the checkpoint predicts."""
