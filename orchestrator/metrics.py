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

        self._connected = Gauge(
            "flagship_broker_connected",
            "Whether a broker is reached and what it holds is known: 0 or 1.",
            ("broker",),
            registry=self.registry,
        )
        self._behind = Gauge(
            "flagship_broker_behind",
            "What a broker does not have yet: topics that changed, releases that are not complete.",
            ("broker", "what"),
            registry=self.registry,
        )

    def set_broker(self, name: str, *, connected: bool, topics: int, releases: int) -> None:
        """How one broker stands now."""
        self._connected.labels(name).set(connected)
        self._behind.labels(name, "topics").set(topics)
        self._behind.labels(name, "releases").set(releases)

    def set_expiry(self, thing: Expiring, level: Level) -> None:
        """What is known now of one thing that runs out."""
        self._expires.labels(thing.kind, thing.name).set(thing.expires.timestamp())
        self._level.labels(thing.kind, thing.name).set(SEVERITY[level])

    def render(self) -> bytes:
        """Prometheus' text format, version 0.0.4."""
        return generate_latest(self.registry)
