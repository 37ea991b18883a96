"""A receiver of traces: OTLP over HTTP, read with OpenTelemetry's own message classes."""

import gzip
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from tests.ports import free_port


class Received:
    """What came in."""

    def __init__(self, endpoint: str):
        self.endpoint = endpoint
        self.raw: list[bytes] = []
        self.requests: list[ExportTraceServiceRequest] = []

    def spans(self) -> dict[str, Any]:
        """Spans by name; one a name."""
        return {span.name: span for _, span in self.all()}

    def all(self) -> list[tuple[str, Any]]:
        """Every span with its service's name."""
        found = []
        for request in list(self.requests):
            for resource in request.resource_spans:
                service = attributes(resource.resource)["service.name"]
                found += [(service, span) for scope in resource.scope_spans for span in scope.spans]
        return found

    def wait(self, condition: Callable[[dict[str, Any]], bool], seconds: float = 20) -> dict[str, Any]:
        """The spans by name once they are as asked."""
        end = time.monotonic() + seconds
        while not condition(self.spans()):
            assert time.monotonic() < end, f"only {sorted(self.spans())} came in"
            time.sleep(0.05)
        return self.spans()


def attributes(told: Any) -> dict[str, Any]:
    """Attributes of a span or a resource as plain values."""
    return {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in told.attributes}


@contextmanager
def receiving(port: int | None = None) -> Iterator[Received]:
    """A receiver that listens while the block runs."""
    port = port or free_port()
    received = Received(f"http://127.0.0.1:{port}")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            request = ExportTraceServiceRequest()
            request.ParseFromString(body)
            received.raw.append(body)
            received.requests.append(request)
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200 if self.path == "/v1/traces" else 404)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield received
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
