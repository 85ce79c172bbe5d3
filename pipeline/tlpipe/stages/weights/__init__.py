"""Weights: obtains a backbone's pretrained file, verified, and prepares it for use.

Owns the caches of downloaded files and of prepared networks. Takes a card, gives the path of the
pretrained file, an ``onnx.ModelProto`` (the full network), or the path of a prepared file: uint8
images in, embeddings out. Imports ``card``, ``files`` and ``graph`` (and that only when a network
must be built: a cached one opens without ``onnx``). What must be run to be known or proved is run
by an ``OpenGraph`` that the caller brings.
"""

from tlpipe.stages.weights.locate import downloaded_file as downloaded_file
from tlpipe.stages.weights.locate import pretrained_file as pretrained_file
from tlpipe.stages.weights.locate import weight_files as weight_files
from tlpipe.stages.weights.locate import where as where
from tlpipe.stages.weights.network import class_network as class_network
from tlpipe.stages.weights.network import class_networks as class_networks
from tlpipe.stages.weights.network import feature_network as feature_network
from tlpipe.stages.weights.network import full_network as full_network
from tlpipe.stages.weights.network import prepared_file as prepared_file
from tlpipe.stages.weights.network import prepared_files as prepared_files
from tlpipe.stages.weights.network import resolved as resolved
from tlpipe.stages.weights.quantised import calibrated as calibrated
from tlpipe.stages.weights.quantised import quantised_file as quantised_file
from tlpipe.stages.weights.quantised import quantised_network as quantised_network
from tlpipe.stages.weights.quantised import range_file as range_file
