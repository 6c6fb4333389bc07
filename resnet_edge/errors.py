"""Every failure a user can meet: one exception class a kind, one exit code a class.

The exit codes are the command line's contract (see README): 0 ok, 1 a gate failed, 2 usage, 3 model or
data rejected, 4 dependency or runtime missing, 5 conversion failed, 6 runner unreachable, 7 inconclusive.
"""

from __future__ import annotations

from typing import ClassVar


class ResnetEdgeError(Exception):
    """A failure with everything the user needs to act on it.

    Attributes:
        what: One sentence that says what went wrong.
        where: The layer, tensor, option or file it is about.
        found: The value that was found there.
        allowed: The values that would have been accepted.
        next_step: What to do now.
    """

    exit_code: ClassVar[int]

    def __init__(
        self, what: str, *, where: str = "", found: str = "", allowed: str = "", next_step: str = ""
    ) -> None:
        self.what = what
        self.where = where
        self.found = found
        self.allowed = allowed
        self.next_step = next_step
        super().__init__(self.render())

    def fields(self) -> dict[str, str]:
        """The non-empty parts by name, in reading order (for ``--json``)."""
        parts = {
            "what": self.what,
            "where": self.where,
            "found": self.found,
            "allowed": self.allowed,
            "next": self.next_step,
        }
        return {name: text for name, text in parts.items() if text}

    def render(self) -> str:
        """The message as shown in a terminal: the sentence, then one indented line a part."""
        lines = [self.what]
        for name, text in list(self.fields().items())[1:]:
            lines.append(f"  {name + ':':<9}{text.replace(chr(10), chr(10) + ' ' * 11)}")
        return "\n".join(lines)


class GateFailedError(ResnetEdgeError):
    """A measured figure is outside its limit."""

    exit_code = 1


class UsageError(ResnetEdgeError):
    """The command line or the arguments of a call make no sense."""

    exit_code = 2


class ModelRejectedError(ResnetEdgeError):
    """The model, its weights or its layers cannot be used."""

    exit_code = 3


class UnsafeFileError(ModelRejectedError):
    """A file holds code, links or sizes that must not reach a loader."""


class DataRejectedError(ResnetEdgeError):
    """The images or labels cannot be used."""

    exit_code = 3


class DependencyMissingError(ResnetEdgeError):
    """A package, runtime or download that the work needs is not there."""

    exit_code = 4


class ConversionFailedError(ResnetEdgeError):
    """A file could not be written, or does not compute what the model computes."""

    exit_code = 5


class RunnerUnreachableError(ResnetEdgeError):
    """A device or emulator does not answer."""

    exit_code = 6


class InconclusiveError(ResnetEdgeError):
    """There are too few images to decide."""

    exit_code = 7
