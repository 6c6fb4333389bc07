"""A verification as JSON; docs/report.md says what every field means."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resnet_edge.verification.report import Report


def render(report: Report) -> str:
    """The whole report in ASCII: file names may hold what UTF-8 cannot.

    Raises:
        ValueError: A figure is NaN or infinite, which the report's types rule out.
    """
    return json.dumps(report.to_json(), indent=2, allow_nan=False) + "\n"
