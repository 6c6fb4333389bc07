"""Graph transformations: one a file, each with a report of what it did and why not where it did nothing."""

from resnet_edge.pass_reports import Change, Kept, PassReport
from resnet_edge.passes.base import Pass
from resnet_edge.passes.run import PassesResult, run_passes

__all__ = ["Change", "Kept", "Pass", "PassReport", "PassesResult", "run_passes"]
