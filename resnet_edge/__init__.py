"""resnet-edge: export, quantize and verify ResNets for the edge.

The verbs of the command line are functions here, and their options are frozen dataclasses:

    from resnet_edge import ExportOptions, export
    result = export("my_model.keras", "bundle", ExportOptions(preprocess="torch"))
"""

from resnet_edge.finetuning.options import FinetuneOptions
from resnet_edge.pipeline import (
    ExportOptions,
    QuantizeOptions,
    Result,
    VerifyOptions,
    export,
    finetune,
    quantize,
    verify,
)

__version__ = "0.1.0"

__all__ = [
    "ExportOptions",
    "FinetuneOptions",
    "QuantizeOptions",
    "Result",
    "VerifyOptions",
    "__version__",
    "export",
    "finetune",
    "quantize",
    "verify",
]
