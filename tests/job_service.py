"""Beam's portable job service with as many workers as a job asks for: Beam's own program runs one.

python -m tests.job_service PORT_FILE
"""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path

from apache_beam.options.pipeline_options import DirectOptions, PortableOptions
from apache_beam.portability.api import beam_job_api_pb2
from apache_beam.runners.portability import local_job_service
from apache_beam.runners.portability.fn_api_runner import fn_runner
from apache_beam.runners.runner import PipelineResult


class _Job(local_job_service.BeamJob):
    """A job on several workers."""

    def _invoke_runner(self) -> PipelineResult:
        options = self.pipeline_options()
        repeat = options.view_as(DirectOptions).direct_runner_bundle_repeat or 0
        runner = fn_runner.FnApiRunner(bundle_repeat=int(repeat), provision_info=self._provision_info)
        runner._num_workers = int(options.view_as(PortableOptions).sdk_worker_parallelism)
        self.set_state(beam_job_api_pb2.JobState.RUNNING)
        return runner.run_via_runner_api(self._pipeline_proto, options)


def main(port_file: str) -> None:
    """Serves until SIGTERM comes."""
    told = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: told.set())
    service = local_job_service.LocalJobServicer(beam_job_type=_Job)
    tell(port_file, service.start_grpc_server(0))
    told.wait()
    service.stop()


def tell(port_file: str, port: int) -> None:
    """Says in a file on which port it is served; the file is whole as soon as it is there."""
    partly = Path(f"{port_file}.part")
    partly.write_text(str(port))
    partly.rename(port_file)


if __name__ == "__main__":
    main(sys.argv[1])
