"""The serving process as a rehearsal starts it: `python -m tasks.serving.candidate FD [scikit-learn]` serves on a socket that it was given.

It ends with whoever started it: standard input is a pipe whose other end that process holds, and a kill closes it, too.
"""

import importlib
import os
import socket
import sys
import threading

from tasks.config.settings import Settings
from tasks.serving import app


def main() -> None:
    """Serves until it is told to stop, or nobody is there any more to tell."""
    threading.Thread(target=_end_with_the_starter, daemon=True).start()
    os.environ["OMP_NUM_THREADS"] = "1"
    if "scikit-learn" in sys.argv[2:]:
        for name in (
            "skops.io",
            "sklearn.ensemble",
        ):  # what every such model needs is no candidate's own: it counts for none
            importlib.import_module(name)
    app.serve(Settings(), [socket.socket(fileno=int(sys.argv[1]))])


def _end_with_the_starter() -> None:
    sys.stdin.buffer.read()
    os._exit(1)  # nothing here is worth keeping, and a model that never returns must not hold it


if __name__ == "__main__":
    main()
