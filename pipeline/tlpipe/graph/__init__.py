"""ONNX surgery: build, cut, fold preprocessing in, join a head, digest the weights.

This package owns the ``onnx`` library: nothing else imports it. It takes and gives
``onnx.ModelProto``, and imports ``errors`` and ``types`` only. Much about a network is known only
by running it; whoever calls brings the means to (``seams.OpenGraph``).

From a file to a feature extractor: ``io`` reads it, leaving its weights where they are; ``tidy``
and ``branches`` bring it into one form; ``image_input`` finds where images go in; ``trace`` runs it
once, to know every tensor's shape; ``walk`` goes back from the class scores to the last layer with
weights (``layers``), ``decide`` judges what that means, and ``features`` says what feeds it;
``cut`` ends the network there; ``batch`` frees it from a fixed batch size (``axes``, ``rewrite``)
and proves that; ``prefix`` folds the preprocessing in; ``head`` joins a new last layer; ``digest``
proves that no weight was touched. ``analyse`` does the finding in one call.

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

CLASS_SCORES = f"{OWN_PREFIX}scores"
"""The backbone's own class scores in a network that keeps its last layer: float32 (N, C)."""

PROBABILITIES = "probabilities"
"""Output of a classifier: float32 (N, K)."""

LABELS = "labels"
"""Output of a classifier: bool (N, K), the labels of an image that may have several."""

UNKNOWN_SCORE = "unknown_score"
"""Output of a classifier: float32 (N,), how far an image lies from those of the classes."""

UNKNOWN = "unknown"
"""Output of a classifier: bool (N,), whether an image is of none of the classes."""

PREDICTION_SET = "prediction_set"
"""Output of a classifier: bool (N, K), the classes that an image may be of."""
