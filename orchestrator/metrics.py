"""Prometheus figures of one orchestrator. ``/metrics`` renders them; whoever knows a figure sets it."""

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

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

        self._retained = Gauge(
            "flagship_retained_chunk_bytes", "Chunks that a broker retains.", ("broker",), registry=self.registry
        )
        self._budget = Gauge(
            "flagship_retained_chunk_bytes_max", "Its byte budget for chunks.", ("broker",), registry=self.registry
        )
        self._again = Counter(
            "flagship_chunks_republished",
            "Chunks published again: lost with the broker, wanted by devices, or found missing by the audit.",
            ("broker", "reason"),
            registry=self.registry,
        )
        self._cleared = Counter(
            "flagship_chunks_cleared", "Chunks that no release needed any more.", ("broker",), registry=self.registry
        )
        self._wants_dropped = Counter(
            "flagship_wants_dropped",
            "Chunks that devices wanted and that were not published for it.",
            ("reason",),
            registry=self.registry,
        )

    def set_retained(self, broker: str, retained_bytes: int, budget_bytes: int) -> None:
        """What a broker retains of chunks, and may."""
        self._retained.labels(broker).set(retained_bytes)
        self._budget.labels(broker).set(budget_bytes)

    def add_republished(self, broker: str, reason: str, chunks: int) -> None:
        """Chunks that were published again."""
        self._again.labels(broker, reason).inc(chunks)

    def add_cleared(self, broker: str, chunks: int) -> None:
        """Chunks that were taken off a broker."""
        self._cleared.labels(broker).inc(chunks)

    def add_wants_dropped(self, reason: str, chunks: int) -> None:
        """Wants that were not honoured."""
        self._wants_dropped.labels(reason).inc(chunks)

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
