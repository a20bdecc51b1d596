"""Keeps the embedded ClickHouse of a store directory running until it is asked to stop: ``python -m deploy.local.store DIRECTORY``."""

import select
import signal
import sys
from pathlib import Path
from types import FrameType

from schemas.errors import TasktrailError
from store.server import Server

READY = "the store answers"
LOOK_S = 1.0


def main() -> int:
    """Serve until SIGTERM or SIGINT; a server that dies is started again."""
    stopping = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    try:
        with Server(Path(sys.argv[1])) as server:
            print(f"{READY}: {server.address('reader')}", flush=True)
            while not stopping:
                select.select([], [], [], LOOK_S)
                if server.revive():
                    print("the server had ended and was started again", flush=True)
    except TasktrailError as failure:
        print(f"tasktrail: {failure}", flush=True)
        return failure.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
