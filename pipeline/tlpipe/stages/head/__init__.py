"""Head: trains the new last layer on cached embeddings."""

from tlpipe.stages.head.training import Head, HeldOut, Trial, train

__all__ = ["Head", "HeldOut", "Trial", "train"]
