"""All passes in the order that the formats need."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from resnet_edge.passes.absorb_padding import absorb_padding
from resnet_edge.passes.check_weights import check_weights
from resnet_edge.passes.drop_identity import drop_identity
from resnet_edge.passes.fold_batchnorm import fold_batchnorm
from resnet_edge.passes.fold_input import fold_input_normalization
from resnet_edge.passes.fuse_activation import fuse_activation
from resnet_edge.passes.global_pooling import global_pooling
from resnet_edge.passes.lower_affine import lower_affine
from resnet_edge.passes.merge_reshapes import merge_reshapes

if TYPE_CHECKING:
    from resnet_edge.data.preprocessing import Preprocessing
    from resnet_edge.graph import Graph
    from resnet_edge.pass_reports import PassReport
    from resnet_edge.passes.base import Pass


@dataclass(frozen=True, kw_only=True)
class PassesResult:
    """A graph that converters take, and what each pass did to it.

    Attributes:
        graph: Without ``Affine``, and without ``BatchNorm`` unless folding was switched off.
        reports: One a pass that ran, in order.
    """

    graph: Graph
    reports: tuple[PassReport, ...]

    def report(self, name: str) -> PassReport | None:
        """The report of a pass; None if it did not run."""
        return next((report for report in self.reports if report.name == name), None)


def run_passes(
    graph: Graph, *, fold: bool = True, preprocessing: Preprocessing | None = None
) -> PassesResult:
    """Bring an imported graph into the form that converters take.

    Args:
        graph: As the import leaves it.
        fold: Fold batch norms; else they stay nodes of their own.
        preprocessing: If given, the graph takes pixels 0 to 255 in RGB order instead of model inputs.

    Raises:
        ModelRejectedError: A weight cannot be used; names the tensor.
    """
    check_weights(graph)
    # First what computes nothing, so that it hides no neighbour from the others.
    passes: list[Pass] = [drop_identity]
    if preprocessing is not None:
        # Before the batch norms, so that one at the very beginning can take up the normalization.
        passes.append(partial(fold_input_normalization, preprocessing=preprocessing))
    # A Pad hides how much of the map a pool covers.
    passes += [absorb_padding, global_pooling]
    if fold:
        passes.append(fold_batchnorm)
    passes += [
        # What folding left becomes a convolution, which can carry a ReLU: so before fuse_activation.
        partial(lower_affine, batch_norms=fold),
        fuse_activation,
        # Last, because lower_affine and global_pooling leave Reshapes.
        merge_reshapes,
    ]
    reports = []
    for run in passes:
        graph, report = run(graph)
        reports.append(report)
    return PassesResult(graph=graph, reports=tuple(reports))
