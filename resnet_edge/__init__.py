"""resnet-edge: export, quantize and verify ResNets for the edge."""

__version__ = "0.1.0"
