"""The failures that a command explains instead of showing a stack trace."""

from __future__ import annotations


class Failure(Exception):
    """Something that a person can mend: `what` names the thing, `remedy` what to do about it.

    The exit status is 1 for a failure of what was asked, 2 for a mistake in how it was asked.
    """

    def __init__(self, what: str, remedy: str = "", *, exit_code: int = 1) -> None:
        """Return what failed and, where there is one, the remedy."""
        super().__init__(f"{what} ({remedy})" if remedy else what)
        self.what = what
        self.remedy = remedy
        self.exit_code = exit_code
