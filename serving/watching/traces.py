"""OpenTelemetry spans of a request: ingress, model, engine. Off unless an OTLP endpoint is configured.

    with span("triage", rules=41):
        ...

Serve does not carry our spans from one replica to the next, so the caller of a handle passes
``carrier()`` along and the callee goes on with ``span(..., parent=...)``. Neither ASGI's nor
Serve's own instrumentation is used: both record paths and messages of exceptions, which may
hold what a client wrote. Attributes are numbers, and names as labels of metrics are.

Of a ``traceparent`` header ids and the choice to sample are taken over, and nothing of ``tracestate``.
"""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN, Span, SpanKind, Status, StatusCode, set_span_in_context, use_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from configs.watching import TraceSettings
from serving.watching.metrics import name as as_name

PROPAGATOR = TraceContextTextMapPropagator()
HEADER = "traceparent"
EXPORT_EVERY_MS = 1000
"""A replica that is killed takes the spans of so long with it."""
EXPORT_TIMEOUT_S = 3.0
"""Seconds, tries included, that a collector has to take a batch; then it is lost."""
Value = str | int | float | bool | None


class Tracing:
    """This process' tracer; None while traces are off."""

    provider: Any = None
    tracer: Any = None


def setup(settings: TraceSettings, service: str) -> None:
    """Send this process' spans to the endpoint as those of ``service``; nothing where none is configured."""
    if settings.endpoint is None or Tracing.tracer is not None:
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio

    exporter = OTLPSpanExporter(endpoint=f"{settings.endpoint}/v1/traces", timeout=EXPORT_TIMEOUT_S)
    provider = TracerProvider(
        resource=Resource.create({"service.name": f"llumi-{service}", "service.namespace": "llumi"}),
        sampler=ParentBasedTraceIdRatio(settings.sample),
    )
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=EXPORT_EVERY_MS))
    # Its own provider, not the process' global one: libraries that trace themselves stay silent.
    Tracing.provider, Tracing.tracer = provider, provider.get_tracer("llumi")


def shutdown() -> None:
    """Send what is left and turn traces off."""
    if Tracing.provider is not None:
        Tracing.provider.shutdown()
    Tracing.provider = Tracing.tracer = None


def carrier(told: Span | None = None) -> dict[str, str]:
    """What a callee in another process needs to go on below ``told``, or the current span; empty with traces off."""
    if Tracing.tracer is None:
        return {}
    found: dict[str, str] = {}
    PROPAGATOR.inject(found, None if told is None else set_span_in_context(told))
    return {key: value for key, value in found.items() if key == HEADER}


@contextmanager
def span(
    name: str,
    *,
    parent: Mapping[str, str] | None = None,
    kind: SpanKind = SpanKind.INTERNAL,
    current: bool = True,
    **attributes: Value,
) -> Iterator[Span]:
    """A span around the block, below the current one or below ``parent``, a ``carrier()`` or a request's headers.

    A generator that yields inside must say ``current=False``: it would leave its span behind in
    whoever reads it. An exception is noted by its type.
    """
    if Tracing.tracer is None:
        yield INVALID_SPAN
        return
    with opened(Tracing.tracer.start_span(name, context=context_of(parent), kind=kind), current) as started:
        describe(started, **attributes)
        yield started


def describe(told: Span, **attributes: Value) -> None:
    """Add numbers and names to a span; what does not look like a name becomes ``other``."""
    if told.is_recording():
        for key, value in attributes.items():
            if value is not None:
                told.set_attribute(f"llumi.{key}", as_name(value) if isinstance(value, str) else value)


@contextmanager
def opened(started: Span, current: bool) -> Iterator[Span]:
    """Ends the span with the block."""
    try:
        if current:
            with use_span(started, record_exception=False, set_status_on_exception=False):
                yield started
        else:
            yield started
    except (GeneratorExit, asyncio.CancelledError):
        started.set_attribute("llumi.cancelled", True)
        raise
    except BaseException as error:
        started.set_status(Status(StatusCode.ERROR, type(error).__name__))
        raise
    finally:
        started.end()


def context_of(parent: Mapping[str, str] | None) -> Context | None:
    """The context that ``traceparent`` of ``parent`` names; None, the current one, where it names none."""
    if not parent or HEADER not in parent:
        return None
    return PROPAGATOR.extract({HEADER: parent[HEADER]}, context=set_span_in_context(INVALID_SPAN))
