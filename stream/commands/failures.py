"""Errors that a command explains without a stack trace."""

from __future__ import annotations


class Failure(Exception):
    """An error that the user can fix: `what` is the error, `remedy` what to do.

    The exit status is 1 for a failed command, 2 for wrong arguments, settings or input files.
    """

    def __init__(self, what: str, remedy: str = "", *, exit_code: int = 1) -> None:
        """`remedy` may be empty."""
        super().__init__(f"{what} ({remedy})" if remedy else what)
        self.what = what
        self.remedy = remedy
        self.exit_code = exit_code
