"""A worker on the host that TEST_HOST names, whose assignment can't be taken over if TEST_FAULT is "assignment"."""

from __future__ import annotations

import os
import socket
import sys

if host := os.environ.get("TEST_HOST"):
    socket.gethostname = lambda: host  # before Faust's settings ask

from stream.commands.main import main
from stream.faust_patches.group_member import MovedHostAssignor


def fail(self: MovedHostAssignor, assignment: object) -> None:
    """Stand for what a coordination task does not survive."""
    raise AssertionError("an assignment that does not fit")


if __name__ == "__main__":
    if os.environ.get("TEST_FAULT") == "assignment":
        MovedHostAssignor.on_assignment = fail  # type: ignore[method-assign,assignment]
    sys.argv[1:] = ["worker"]
    main()
