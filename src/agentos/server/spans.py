"""Where the server's OpenTelemetry spans go: what the standard OTEL_* names of the environment say."""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module

_log = logging.getLogger(__name__)
_NAMES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


@contextmanager
def send_spans(environ: Mapping[str, str] | None = None) -> Iterator[bool]:
    """Export spans by OTLP meanwhile, where an endpoint is named; whether they are."""
    environ = os.environ if environ is None else environ
    off = environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or environ.get("OTEL_TRACES_EXPORTER") == "none"
    if off or not any(environ.get(name) for name in _NAMES):
        yield False
        return
    protocol = next((environ[name] for name in _PROTOCOLS if environ.get(name)), "http/protobuf")
    kind = "grpc" if protocol == "grpc" else "http"
    try:
        exporter = import_module(f"opentelemetry.exporter.otlp.proto.{kind}.trace_exporter").OTLPSpanExporter()
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        _log.warning("no spans are sent: install agentos-kernel[otel], or unset OTEL_EXPORTER_OTLP_ENDPOINT")
        yield False
        return
    from opentelemetry import trace

    # endpoint, headers, sampling and resource are the SDK's to read
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    try:
        yield True
    finally:
        provider.shutdown()
