"""Beam's pool of workers, on a port that it chooses itself: Beam's own program has to be told a free one.

python -m tests.worker_pool PORT_FILE EXECUTABLE
"""

from __future__ import annotations

import signal
import sys

from apache_beam.runners.worker.worker_pool_main import BeamFnExternalWorkerPoolServicer

from tests.job_service import tell


def main(port_file: str, executable: str) -> None:
    """Serves until it is killed.

    Args:
        port_file: where it says on which port.
        executable: what boots a worker.
    """
    # The server ends when nobody holds it any more.
    address, _server = BeamFnExternalWorkerPoolServicer.start(
        use_process=True, port=0, container_executable=executable
    )
    tell(port_file, int(address.rpartition(":")[2]))
    signal.pause()


if __name__ == "__main__":
    main(*sys.argv[1:])
