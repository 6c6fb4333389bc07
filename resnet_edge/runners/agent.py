"""Runs artifacts on a device: one file that is copied there, started as ``python agent.py``, and asked.

The standard library, NumPy and a runtime are all it needs, and Python 3.8. Requests and answers are JSON, one
a line, on standard input and output:

``{"do": "probe"}``
    The machine, its processor, and the versions of what is installed. Imports nothing of it.
``{"do": "open", "artifact": PATH, "format": "tflite"|"onnx"|"savedmodel", "threads": N, "kernels": NAME}``
    Opens an artifact in its runtime: :attr:`Model.details`, and ``load_ms``, the import left out.
``{"do": "run", "inputs": PATH, "outputs": PATH, "batch": N}``
    Runs raw tensors, in the artifact's own layout and element type, N of the first dimension at a time.
``{"do": "time", "runs": N, "warmup": N, "seed": N}``
    Milliseconds of each run on seeded inputs, without copying in and out.
``{"do": "status"}``
    Peak memory of this process; governor, clock and temperature where the system tells.
``{"do": "close"}``, ``{"do": "exit"}``
    Frees the artifact; ends.

An error is an answer too: ``{"error": {"kind": KIND, "what": TEXT, "type": CLASS}}``, where KIND is
``runtime-missing``, ``refused`` (the runtime does not take the artifact), ``bad-request`` or ``failed``.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import importlib.metadata
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

PACKAGES = ("numpy", "ai-edge-litert", "tflite-runtime", "onnxruntime", "tensorflow")
"""What :func:`probe` looks for."""

AT_HWCAP, AT_HWCAP2 = 16, 26
"""Where the kernel's auxiliary vector (getauxval(3)) holds a processor's features, as bits."""
# fmt: off
HWCAP_NAMES = (
    "fp", "asimd", "evtstrm", "aes", "pmull", "sha1", "sha2", "crc32", "atomics", "fphp", "asimdhp", "cpuid",
    "asimdrdm", "jscvt", "fcma", "lrcpc", "dcpop", "sha3", "sm3", "sm4", "asimddp", "sha512", "sve",
    "asimdfhm", "dit", "uscat", "ilrcpc", "flagm", "ssbs", "sb", "paca", "pacg",
    # The second word.
    "dcpodp", "sve2", "sveaes", "svepmull", "svebitperm", "svesha3", "svesm4", "flagm2", "frint", "svei8mm",
    "svef32mm", "svef64mm", "svebf16", "i8mm", "bf16",
)
"""The bits' names from the lowest on, 32 a word, as 64-bit ARM Linux writes them in /proc/cpuinfo."""

ARM_CORES = {
    "0xd03": "Cortex-A53", "0xd05": "Cortex-A55", "0xd08": "Cortex-A72", "0xd09": "Cortex-A73",
    "0xd0b": "Cortex-A76", "0xd0c": "Neoverse-N1", "0xd40": "Neoverse-V1", "0xd41": "Cortex-A78",
}
"""ARM's own cores by the part number of /proc/cpuinfo."""
# fmt: on


class AgentError(Exception):
    """A request cannot be carried out; ``kind`` is that of the answer."""

    def __init__(self, kind: str, what: object) -> None:
        super().__init__(str(what).strip())
        self.kind = kind


class Model:
    """An artifact opened in its runtime; a run is feed, invoke, fetch, and only invoke is timed.

    Args:
        artifact: The file or folder.
        threads: Threads within an operator.
        kernels: Of a .tflite: ``xnnpack`` (with optimized kernels for what it leaves) or ``reference``.

    Attributes:
        details: ``runtime``, ``version``, ``kernels``; ``inputs`` and ``outputs``, each a list of ``name``,
            ``shape`` (None where it is open), ``dtype`` and, in a .tflite, ``scale`` and ``zero_point``; and
            ``metadata``, the texts kept in the file.

    Raises:
        AgentError: The runtime is not installed, or does not accept the artifact.
    """

    modules: tuple[str, ...]
    """What can be the runtime, in order of preference."""
    _batch: Any
    _output: Any

    def __init__(self, artifact: str, *, threads: int = 1, kernels: str = "xnnpack") -> None:
        self.threads, self.kernels = threads, kernels
        runtime = self.import_runtime()
        try:
            details = self._load(runtime, artifact)
        except Exception as error:  # the runtimes' exceptions share no other base class
            raise AgentError("refused", error) from error
        package = runtime.__name__.split(".")[0].replace("_", "-")
        named = {"runtime": package, "version": _version(package), "kernels": "default", "metadata": {}}
        self.details: dict[str, Any] = {**named, **details}

    @classmethod
    def import_runtime(cls) -> Any:
        """The runtime's module."""
        missing = []
        for name in cls.modules:
            try:
                return importlib.import_module(name)
            except ImportError as error:
                missing.append(str(error))
        raise AgentError("runtime-missing", missing[0])

    def _load(self, runtime: Any, artifact: str) -> dict[str, Any]:
        """Open the artifact; its inputs, outputs and metadata."""
        raise NotImplementedError

    def feed(self, batch: Any) -> None:
        """Take one batch, in the artifact's own layout and element type."""
        self._batch = batch

    def invoke(self) -> None:
        """Compute."""
        raise NotImplementedError

    def fetch(self) -> Any:
        """The first output of the last :meth:`invoke`, as an array of the caller's own."""
        return self._output

    def run(self, batch: Any) -> Any:
        """The first output for one batch of the first input."""
        self.feed(batch)
        self.invoke()
        return self.fetch()


class TFLiteModel(Model):
    """A .tflite file in LiteRT, or in tflite-runtime where that is what there is."""

    modules = ("ai_edge_litert.interpreter", "tflite_runtime.interpreter")

    def _load(self, runtime: Any, artifact: str) -> dict[str, Any]:
        resolver = {"xnnpack": "AUTO", "reference": "BUILTIN_REF"}[self.kernels]
        self._interpreter = runtime.Interpreter(
            model_path=artifact,
            num_threads=self.threads,
            experimental_op_resolver_type=getattr(runtime.OpResolverType, resolver),
        )
        self._interpreter.allocate_tensors()
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        self._input, self._result = inputs[0]["index"], outputs[0]["index"]
        self._allocated = tuple(inputs[0]["shape"].tolist())
        ends = {"inputs": [*map(tflite_tensor, inputs)], "outputs": [*map(tflite_tensor, outputs)]}
        return {"kernels": self.kernels, **ends}

    def feed(self, batch: Any) -> None:
        """Take one batch; memory is laid out anew where it has another size than the last."""
        if batch.shape != self._allocated:
            self._interpreter.resize_tensor_input(self._input, batch.shape)
            self._interpreter.allocate_tensors()
            self._allocated = batch.shape
        self._interpreter.set_tensor(self._input, batch)

    def invoke(self) -> None:
        """Compute."""
        self._interpreter.invoke()

    def fetch(self) -> Any:
        """A copy of the first output."""
        return self._interpreter.get_tensor(self._result)


class OnnxModel(Model):
    """An ONNX file in ONNX Runtime, on the CPU."""

    modules = ("onnxruntime",)

    def _load(self, runtime: Any, artifact: str) -> dict[str, Any]:
        options = runtime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self.threads, 1
        options.log_severity_level = 3  # errors only
        session = runtime.InferenceSession(artifact, options, providers=["CPUExecutionProvider"])
        self._session, self._input = session, session.get_inputs()[0].name
        inputs = [*map(onnx_tensor, session.get_inputs())]
        outputs = [*map(onnx_tensor, session.get_outputs())]
        metadata = dict(session.get_modelmeta().custom_metadata_map)
        return {"inputs": inputs, "outputs": outputs, "metadata": metadata}

    def invoke(self) -> None:
        """Compute."""
        self._output = self._session.run(None, {self._input: self._batch})[0]


class SavedModel(Model):
    """The default signature of a SavedModel in TensorFlow, on the CPU."""

    modules = ("tensorflow",)

    def _load(self, runtime: Any, artifact: str) -> dict[str, Any]:
        with contextlib.suppress(RuntimeError):  # a process has one pool, set up at its first operator
            runtime.config.threading.set_intra_op_parallelism_threads(self.threads)
        self._model, self._constant = runtime.saved_model.load(artifact), runtime.constant
        self._signature = self._model.signatures["serving_default"]
        inputs = _signature_tensors(self._signature.structured_input_signature[1])
        outputs = _signature_tensors(self._signature.structured_outputs)
        self._input, self._result = inputs[0]["name"], outputs[0]["name"]
        file = Path(artifact, "assets.extra", "resnet_edge.json")
        metadata = {file.name: file.read_text("utf-8")} if file.is_file() else {}
        return {"inputs": inputs, "outputs": outputs, "metadata": metadata}

    def feed(self, batch: Any) -> None:
        """Take one batch."""
        self._batch = {self._input: self._constant(batch)}

    def invoke(self) -> None:
        """Compute."""
        self._output = self._signature(**self._batch)[self._result].numpy()


def tflite_tensor(tensor: dict[str, Any]) -> dict[str, Any]:
    """A tensor of an interpreter as :attr:`Model.details` has it."""
    scale, zero_point = tensor["quantization"]
    shape = [None if size == -1 else size for size in tensor["shape_signature"].tolist()]
    form = {"dtype": tensor["dtype"].__name__, "scale": float(scale), "zero_point": int(zero_point)}
    return {"name": tensor["name"], "shape": shape, **form}


def onnx_tensor(tensor: Any) -> dict[str, Any]:
    """A tensor of a session as :attr:`Model.details` has it."""
    dtype = tensor.type[len("tensor(") : -1]
    shape = [size if isinstance(size, int) else None for size in tensor.shape]
    return {"name": tensor.name, "shape": shape, "dtype": "float32" if dtype == "float" else dtype}


def _signature_tensors(tensors: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"name": name, "shape": t.shape.as_list(), "dtype": t.dtype.name} for name, t in tensors.items()]


def _version(package: str) -> str:
    """The installed version; empty where it is not there. Imports nothing of it."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def probe() -> dict[str, Any]:
    """What this machine is, and what is installed."""
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    name, features = _processor()
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "board": _text("/proc/device-tree/model").strip("\0"),
        "cpu": name,
        "features": sorted(features),
        "cores": len(usable),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "python": platform.python_version(),
        "libc": " ".join(platform.libc_ver()),
        "packages": {package: _version(package) for package in PACKAGES if _version(package)},
    }


def _processor() -> tuple[str, list[str]]:
    """Name and features; where cores differ, of those that Linux lists last, which are the large ones."""
    lines = (line.partition(":") for line in _text("/proc/cpuinfo").splitlines())
    fields = {key.strip(): value.strip() for key, _, value in lines}
    part = fields.get("CPU part", "")
    name = fields.get("model name") or ARM_CORES.get(part, part) or platform.processor()
    if platform.machine() == "aarch64":
        return name, hardware_features(*map(auxiliary_value, (AT_HWCAP, AT_HWCAP2)))
    return name, (fields.get("flags") or fields.get("Features") or "").split()


def auxiliary_value(key: int) -> int:
    """An entry of the auxiliary vector: getauxval(3)."""
    return int(ctypes.CFUNCTYPE(ctypes.c_ulong, ctypes.c_ulong)(("getauxval", ctypes.CDLL(None)))(key))


def hardware_features(hwcap: int, hwcap2: int) -> list[str]:
    """The names of the bits that are set."""
    bits = hwcap & 0xFFFFFFFF | hwcap2 << 32
    return [name for bit, name in enumerate(HWCAP_NAMES) if bits >> bit & 1]


def status() -> dict[str, Any]:
    """Peak memory in bytes; governor, clock in MHz and temperature in degrees Celsius, or None."""
    # Not getrusage's figure, which remembers the process that this one was forked from.
    resident = _text("/proc/self/status").partition("VmHWM:")[2].split()
    clock = _text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq")
    heat = _text("/sys/class/thermal/thermal_zone0/temp")
    return {
        "peak_memory": int(resident[0]) * 1024,
        "governor": _text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or None,
        "clock_mhz": int(clock) / 1e3 if clock else None,
        "temperature_c": int(heat) / 1e3 if heat else None,
    }


def _text(path: str) -> str:
    """A file of the system; empty where it cannot be read."""
    try:
        return Path(path).read_text("utf-8", "replace").strip()
    except OSError:
        return ""


FORMATS = {"tflite": TFLiteModel, "onnx": OnnxModel, "savedmodel": SavedModel}


class Agent:
    """Answers requests about at most one open artifact."""

    def __init__(self) -> None:
        self._opened: Model | None = None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer to one request; never raises."""
        try:
            do = getattr(self, f"_do_{request.pop('do', '')}", None)
            if do is None:
                raise AgentError("bad-request", "there is no such request")  # noqa: TRY301
            return dict(do(**request))
        except Exception as error:  # noqa: BLE001 - whatever goes wrong is the answer
            kind = getattr(error, "kind", "runtime-missing" if isinstance(error, ImportError) else "failed")
            cause = type(error.__cause__ or error).__name__
            return {"error": {"kind": kind, "what": str(error), "type": cause}}

    _do_probe = staticmethod(probe)
    _do_status = staticmethod(status)

    def _do_open(self, *, artifact: str, format: str, **options: Any) -> dict[str, Any]:  # noqa: A002
        self._opened = None
        if format not in FORMATS:
            raise AgentError("bad-request", f"there is no format {format!r}")
        FORMATS[format].import_runtime()
        began = time.perf_counter()
        self._opened = FORMATS[format](artifact, **options)
        return {**self._opened.details, "load_ms": (time.perf_counter() - began) * 1e3}

    def _model(self) -> Model:
        if self._opened is None:
            raise AgentError("bad-request", "no artifact is open")
        return self._opened

    def _do_run(self, *, inputs: str, outputs: str, batch: int) -> dict[str, Any]:
        import numpy as np

        model, given = self._model(), np.load(inputs, allow_pickle=False)
        batches = [given[start : start + batch] for start in range(0, len(given), batch)]
        result = np.concatenate([model.run(np.ascontiguousarray(part)) for part in batches])
        np.save(outputs, result, allow_pickle=False)
        digest = hashlib.sha256(Path(outputs).read_bytes()).hexdigest()
        return {"n": len(result), "non_finite": int(np.sum(~np.isfinite(result))), "sha256": digest}

    def _do_time(self, *, runs: int, warmup: int = 0, seed: int = 0) -> dict[str, Any]:
        model = self._model()
        model.feed(seeded_batch(model.details["inputs"][0], seed))
        taken = []
        for _ in range(warmup + runs):
            began = time.perf_counter_ns()
            model.invoke()
            taken.append((time.perf_counter_ns() - began) / 1e6)
        return {"milliseconds": taken[warmup:]}

    def _do_close(self) -> dict[str, Any]:
        self._opened = None
        return {}

    _do_exit = _do_close


def seeded_batch(tensor: dict[str, Any], seed: int) -> Any:
    """Noise of a tensor's shape and element type; one image where the batch is open."""
    import numpy as np

    noise, shape = np.random.default_rng(seed), [size or 1 for size in tensor["shape"]]
    if "int" not in tensor["dtype"]:
        return noise.standard_normal(shape).astype(tensor["dtype"])
    limits = np.iinfo(tensor["dtype"])
    return noise.integers(limits.min, limits.max, shape, limits.dtype, endpoint=True)


def main() -> None:
    """Answer what comes on standard input, until it ends or says so."""
    # What a runtime prints must not come between the answers: its standard output becomes standard error.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    agent = Agent()
    request: dict[str, Any] = {}
    while request.get("do") != "exit" and (line := sys.stdin.readline()):
        request = json.loads(line)
        answers.write(json.dumps(agent.answer(dict(request))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
