"""Runs .onnx files in the ONNX Runtime of the environment that this script is started in.

Called as ``run_onnx.py FOLDER``: for every ``NAME.onnx`` there, ``NAME.npy`` is its input, ``NAME.out.npy``
becomes its output. Prints ONNX Runtime's version.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnxruntime

for model in sorted(Path(sys.argv[1]).glob("*.onnx")):
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {session.get_inputs()[0].name: np.load(model.with_suffix(".npy"))})
    np.save(model.with_suffix(".out.npy"), output)
sys.stdout.write(onnxruntime.__version__)
