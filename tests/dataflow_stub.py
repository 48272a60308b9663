"""A stand-in for Dataflow's API: takes jobs, and says of each what a test wants it to say.

What it is sent is what Dataflow would be sent; what it answers is enough for Beam to submit and follow a job.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_JOBS = re.compile(r"/v1b3/projects/(?P<project>[^/]+)/locations/(?P<region>[^/]+)/jobs(?P<rest>[/?].*)?$")


@dataclass
class DataflowStub:
    """The service at work.

    Attributes:
        endpoint: what Beam takes for `dataflow_endpoint`.
        jobs: the jobs as they were sent.
        requests: method and path of each request.
        state: what is said of each job.
        refusal: an error to answer to a new job instead: status and message.
    """

    endpoint: str = ""
    jobs: list[dict[str, Any]] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    state: str = "JOB_STATE_DONE"
    refusal: tuple[int, str] | None = None

    def create(self, project: str, region: str, job: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Takes a job."""
        if self.refusal is not None:
            status, message = self.refusal
            return status, {"error": {"code": status, "message": message, "status": "PERMISSION_DENIED"}}
        self.jobs.append(job)
        named = {"id": self.job_id, "projectId": project, "location": region, "name": job["name"]}
        return 200, {
            **named,
            "clientRequestId": job.get("clientRequestId", ""),
            "currentState": "JOB_STATE_QUEUED",
        }

    @property
    def job_id(self) -> str:
        """The last job's id."""
        return f"2024-01-01_00_00_00-{len(self.jobs)}"

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        """Returns status and content of an answer."""
        self.requests.append(f"{method} {path}")
        match = _JOBS.match(path)
        if match is None:
            return 404, {"error": {"code": 404, "message": f"no such path: {path}"}}
        rest = match["rest"] or ""
        if method == "POST" and not rest.startswith("/"):
            return self.create(match["project"], match["region"], json.loads(body))
        if "/messages" in rest or "/metrics" in rest:
            return 200, {}
        return 200, {"id": self.job_id, "currentState": self.state}


@contextmanager
def dataflow_stub() -> Iterator[DataflowStub]:
    """Runs the service for as long as the body runs."""
    stub = DataflowStub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(b"")

        def do_POST(self) -> None:
            self._answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))

        def log_message(self, format: str, *args: object) -> None:
            pass

        def _answer(self, body: bytes) -> None:
            status, content = stub.answer(self.command, self.path, body)
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        # Only this name makes Beam speak plain HTTP.
        stub.endpoint = f"http://localhost:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield stub
        finally:
            server.shutdown()
            thread.join()
