"""A worker that believes itself on the host FAULT_HOSTNAME: what a pod that moved is to the group."""

from __future__ import annotations

import os
import socket
import sys

socket.gethostname = lambda: os.environ["FAULT_HOSTNAME"]

if __name__ == "__main__":
    from stream.commands.main import main  # after the name: Faust reads it when it is imported

    sys.argv[1:] = ["worker"]
    main()
