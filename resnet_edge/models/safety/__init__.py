"""What a model file must be before Keras may open it.

Keras' safe mode is not the boundary here: it has been passed again and again, each time by a part of the
file that nobody had thought of. As the set of supported operators is closed, the question is turned round: a
file is opened when everything in it is known, and this is decided without Keras, from the file's own bytes.

=================  ==========================================================  ===============================
known attack       how it works                                                what stops it here
=================  ==========================================================  ===============================
CVE-2024-3660,     a Lambda layer's bytecode runs; in ``.h5`` files even       Lambda is not a known class
CVE-2025-9905      with safe mode on
CVE-2025-49655     TorchModuleWrapper unpickles a PyTorch module               not a known class
CVE-2025-12058     StringLookup reads its vocabulary from any path or address  not a known class
CVE-2026-1462      TFSMLayer runs a SavedModel from any path                   not a known class
CVE-2026-1669      HDF5 external storage puts any file's bytes into weights    no links, no external storage,
                                                                               no virtual datasets
CVE-2026-0897      a dataset's declared shape exhausts the memory              declared against stored sizes
CVE-2025-1550,     functions and modules named by the configuration            functions of keras.activations
-8747, -9906       (``os.system``, ``get_file``, ``load_model``) are called    only
zip slip, bombs    entries are extracted outside the folder, or fill the disk  exactly Keras' three entries,
                                                                               in proportion to the file
=================  ==========================================================  ===============================

The checks decode no weights: a tenth of a second for a file of 100 MB. They cannot help against faults of the
HDF5 library itself, nor against somebody who exchanges the file while it is read.
"""

from resnet_edge.models.safety.checks import check_hdf5, check_keras_archive
from resnet_edge.models.safety.classes import KNOWN_CLASSES, is_known
from resnet_edge.models.safety.config import CheckedConfig

__all__ = ["KNOWN_CLASSES", "CheckedConfig", "check_hdf5", "check_keras_archive", "is_known"]
