"""Session: opens a prepared network on the device that was asked for, and runs it.

The only modules that import ONNX Runtime or OpenVINO. Takes a file, gives a ``Network`` (see
``seams``): uint8 images in, named arrays out. Imports ``errors``, ``execution``, ``files`` and
``types``.

A device is never exchanged for another: after a session is made, the provider it really uses is
compared with the one asked for.

opening  -> every session of ONNX Runtime is opened here
cuda     -> ... on NVIDIA GPUs
ort      -> a network that runs in such a session
openvino -> a network that OpenVINO runs; loaded only where it is asked for
choose   -> what runs a network, by device, precision and library
surgery  -> a graph that is being worked on, run as it stands
properties -> metadata of an ONNX file that no library opened
"""

from tlpipe.stages.session.choose import open_network, settled
from tlpipe.stages.session.cuda import CUDA, gpu_count
from tlpipe.stages.session.opening import CPU
from tlpipe.stages.session.properties import properties_of
from tlpipe.stages.session.surgery import open_graph

__all__ = ["CPU", "CUDA", "gpu_count", "open_graph", "open_network", "properties_of", "settled"]
