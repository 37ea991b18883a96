"""Settings of what can be seen of the service: traces. Metrics and the access log are always on."""

from pydantic import Field, field_validator

from configs.base import Section


class TraceSettings(Section):
    """OpenTelemetry traces: ingress, model, engine."""

    endpoint: str | None = None
    """OTLP/HTTP address of a collector, as ``http://collector:4318``; none = no traces. Headers with secrets go by
    OTEL_EXPORTER_OTLP_HEADERS in the environment of the serving nodes."""
    sample: float = Field(1.0, ge=0, le=1)
    """Share of the requests that are traced; one that comes with a ``traceparent`` follows the caller's choice."""

    @field_validator("endpoint")
    @classmethod
    def over_http(cls, value: str | None) -> str | None:
        """An address that the exporter can speak to."""
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("the endpoint begins with http:// or https:// (OTLP over HTTP, usually port 4318)")
        return value.rstrip("/") if value else None


class WatchingSettings(Section):
    """What is told about requests to those who run the service; never a text."""

    traces: TraceSettings = TraceSettings()
    """OpenTelemetry traces."""
