"""The classes' names, as the user gives them: a text file with one a line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resnet_edge.errors import DataRejectedError

if TYPE_CHECKING:
    from pathlib import Path


def read_labels(path: Path, classes: int) -> tuple[str, ...]:
    """The names by class index, in the order of the file's lines.

    Names may repeat (ImageNet has two kinds of "crane"); spaces around them and empty lines at the end of the
    file do not count.

    Raises:
        DataRejectedError: The file cannot be read, is not UTF-8 text, leaves a line between two names empty,
            or does not hold one name for each of the ``classes``.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataRejectedError(
            "the labels cannot be read",
            where=str(path),
            found=error.strerror or str(error) if isinstance(error, OSError) else str(error),
            allowed="UTF-8 text, one label a line",
        ) from error
    # Not splitlines(): that also breaks at characters such as U+2028, which may stand in a name.
    labels = tuple(line.strip() for line in text.rstrip().split("\n"))
    if not all(labels):
        raise DataRejectedError("a label is empty", where=f"{path}, line {labels.index('') + 1}")
    if len(labels) != classes:
        raise DataRejectedError(
            "the labels do not match the model's classes",
            where=str(path),
            found=f"{len(labels)} labels",
            allowed=f"{classes}, one for each output of the model",
        )
    return labels
