"""ONNX surgery: build, cut, fold preprocessing in, join a head, digest the weights.

This package owns the ``onnx`` library: nothing else imports it. It takes and gives
``onnx.ModelProto`` or bytes, never runs a network, and imports ``errors`` and ``types`` only.

Every tensor and node that tlpipe adds is named ``tlpipe/...``; all others belong to the backbone
and keep their names and bytes. That is what makes "frozen" provable.
"""

OWN_PREFIX = "tlpipe/"
"""Start of the name of every tensor and node that tlpipe adds to a backbone."""

HEAD_PREFIX = f"{OWN_PREFIX}head/"
"""Start of the name of every tensor and node of a head."""

IMAGE_INPUT = "image"
"""Input of a prepared network: uint8 (N, H, W, 3), RGB."""

EMBEDDINGS = "embeddings"
"""Output of a prepared network: float32 (N, D)."""

PROBABILITIES = "probabilities"
"""Output of a classifier: float32 (N, K)."""
