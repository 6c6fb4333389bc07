"""Sets that only ever join."""

from __future__ import annotations


class DisjointSets:
    """The numbers from 0 on, each at first a set of its own; a set is known by its smallest number.

    Args:
        size: How many numbers.
    """

    def __init__(self, size: int) -> None:
        self._parent = list(range(size))

    def find(self, number: int) -> int:
        """The smallest number of the set that a number is in."""
        parent = self._parent
        while parent[number] != number:
            # Halving the way to the top, so that the next search is short.
            parent[number] = parent[parent[number]]
            number = parent[number]
        return number

    def join(self, first: int, second: int) -> None:
        """Make the sets of two numbers one."""
        low, high = sorted((self.find(first), self.find(second)))
        self._parent[high] = low
