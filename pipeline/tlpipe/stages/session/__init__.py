"""Session: opens a prepared network on the device that was asked for, and runs it.

The only modules that import ONNX Runtime or OpenVINO. Takes a file, gives a ``Network`` (see
``seams``): uint8 images in, named arrays out. Imports ``errors``, ``execution``, ``files`` and
``types``.

A device is never exchanged for another: after a session is made, the provider it really uses is
compared with the one asked for.

choose      -> what runs a network, by device, precision and library
opening     -> every session of ONNX Runtime that runs networks is opened here
opened      -> what a session says of its network
ort         -> a network that runs on the CPU
gpus        -> what the driver says of NVIDIA GPUs
nvidia      -> ... opens a network on all of them
cuda        -> ... with the CUDA provider
tensorrt    -> ... with the TensorRT provider
half        -> ... in float16
gpu_network -> a network that runs on them
lanes       -> ... copying while it computes
batches     -> ... in batches of the size that suits
facts       -> what libraries can run networks here
libraries   -> the libraries that NVIDIA's providers need
findings    -> what keeps a provider from working, and the cure
openvino    -> a network that OpenVINO runs; loaded only where it is asked for
surgery     -> a graph that is being worked on, run as it stands
properties  -> metadata of an ONNX file that no library opened
"""

from tlpipe.stages.session.choose import open_network, settled
from tlpipe.stages.session.gpus import gpu_count
from tlpipe.stages.session.libraries import CUDA, TENSORRT
from tlpipe.stages.session.opening import CPU, WRONG_OPTIMIZERS
from tlpipe.stages.session.properties import properties_of
from tlpipe.stages.session.surgery import open_graph

__all__ = [
    "CPU",
    "CUDA",
    "TENSORRT",
    "WRONG_OPTIMIZERS",
    "gpu_count",
    "open_graph",
    "open_network",
    "properties_of",
    "settled",
]
