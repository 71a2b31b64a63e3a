"""Prometheus gauges of one orchestrator. ``/metrics`` renders them; whoever knows a figure sets it."""

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from orchestrator.expiry import SEVERITY, Expiring, Level


class Metrics:
    """One registry per process, passed in where figures are known."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._expires = Gauge(
            "flagship_expires_timestamp_seconds",
            "When a TUF role's metadata or a certificate runs out, in Unix time.",
            ("kind", "name"),
            registry=self.registry,
        )
        self._level = Gauge(
            "flagship_expiry_level",
            "0 fine, 1 within 30 days, 2 within 7 days, 3 within 1 day, 4 expired.",
            ("kind", "name"),
            registry=self.registry,
        )

    def set_expiry(self, thing: Expiring, level: Level) -> None:
        """What is known now of one thing that runs out."""
        self._expires.labels(thing.kind, thing.name).set(thing.expires.timestamp())
        self._level.labels(thing.kind, thing.name).set(SEVERITY[level])

    def render(self) -> bytes:
        """Prometheus' text format, version 0.0.4."""
        return generate_latest(self.registry)
