"""What goes wrong because of the input, said in one message instead of a traceback."""

from __future__ import annotations

from collections.abc import Sequence


class UserError(Exception):
    """A problem that the user can mend: the message names the file, the row and the remedy."""


class Problems(UserError):
    """Several problems of one thing, all told together, so that all can be mended at once.

    Args:
        what: What they are problems of: a file or a folder.
        problems: One line each.
    """

    def __init__(self, what: object, problems: Sequence[str]):
        self.problems = tuple(problems)
        super().__init__("\n  ".join([f"{what}: cannot be used as it is:", *problems]))
