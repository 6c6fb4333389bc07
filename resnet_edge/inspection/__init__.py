"""What is inside a model file, also one that another tool wrote; needs no TensorFlow."""

from resnet_edge.inspection.report import FileReport, OperatorCount, Quantization, TensorInfo

__all__ = ["FileReport", "OperatorCount", "Quantization", "TensorInfo"]
