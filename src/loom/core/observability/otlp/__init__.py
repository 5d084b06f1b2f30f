"""Spans as OTLP over HTTP with Protobuf, written and sent without an SDK's span objects.

The SDK makes and exports a span in more than a hundred microseconds; here one costs about two, because all that is the same in
many spans is encoded once. `OtelObserver` uses it; the packages of OpenTelemetry are loaded for detectors of resources alone.
"""
