"""From figures to a verdict. Pure.

The limits come from what the protocol needs (design, section 5): windows of 16 to 64 chunks, read back one by one,
on a broker that finds a retained topic without looking at all of them.
"""

from collections.abc import Sequence

from orchestrator.broker_check.figures import Figures, Finding, Verdict
from protocol.chunks import MAX_WINDOW

WINDOW_NEEDED = 16
"""Chunks that must arrive whole at a reader that is slow at first."""
LOOKUP_RATIO = 10.0
LOOKUP_SLACK_S = 0.1
"""A lookup among many may take this much longer than among few before it counts as a scan of all topics."""
WILDCARD_NEEDED = 500
"""Announcements and a device's offers come by wildcard; no device has more of them at once."""
QOS1_SHARE = 0.3
"""Below this share of QoS 0's rate, QoS 1 is the wrong choice."""


def judge(figures: Figures) -> list[Finding]:
    """Every finding, in the order of the probes."""
    return [
        _tls(figures),
        _version(figures),
        _read_back(figures),
        _lookup(figures),
        *(_windows(figures, qos) for qos in (1, 0)),
        _wildcard(figures),
        _packets(figures),
        _access(figures),
        _qos(figures),
        _clearing(figures),
    ]


def overall(findings: Sequence[Finding]) -> Verdict:
    """Fit only where nothing is unfit; what was not probed leaves limits."""
    verdicts = {finding.verdict for finding in findings}
    if Verdict.UNFIT in verdicts:
        return Verdict.UNFIT
    if verdicts & {Verdict.LIMITED, Verdict.UNKNOWN}:
        return Verdict.LIMITED
    return Verdict.FIT


def best_qos(figures: Figures) -> int:
    """The QoS for chunks: 1, unless the broker is many times slower with it."""
    slow, fast = figures.qos_rate.get(1, 0.0), figures.qos_rate.get(0, 0.0)
    return 0 if fast and slow < QOS1_SHARE * fast else 1


def best_window(figures: Figures) -> int:
    """The largest window that came whole, and half of what came whole: never near the edge. 0: none."""
    return _safe(_largest_whole(figures, best_qos(figures)))


def _safe(whole: int) -> int:
    return min(MAX_WINDOW, whole // 2 if whole >= 2 * WINDOW_NEEDED else whole)


def _largest_whole(figures: Figures, qos: int) -> int:
    largest = 0
    for (of, window), came in sorted(figures.windows.items()):
        if of == qos:
            if came < window:
                break
            largest = window
    return largest


def _tls(figures: Figures) -> Finding:
    version, cipher = figures.tls
    fit = version in ("TLSv1.2", "TLSv1.3")
    return Finding(
        "TLS", Verdict.FIT if fit else Verdict.UNFIT, f"{version}, {cipher}", "TLS 1.2 or newer, both sides named"
    )


def _version(figures: Figures) -> Finding:
    if figures.mqtt5:
        return Finding("MQTT version", Verdict.FIT, "5.0", "3.1.1 or 5.0")
    advice = "refused publishes cannot be seen; read-back finds them; set broker.protocol = '3.1.1' on devices"
    return Finding("MQTT version", Verdict.LIMITED, "3.1.1 only", "3.1.1 or 5.0", advice)


def _read_back(figures: Figures) -> Finding:
    limit = "every acknowledged retained message is given back"
    if not figures.acknowledged:
        why = figures.refused or figures.skipped or "nothing was acknowledged"
        return Finding("read-back", Verdict.UNFIT, f"no retained message was taken: {why}", limit, _MAY_WRITE)
    figure = f"{figures.read_back} of {figures.acknowledged} came back"
    if figures.read_back == figures.acknowledged:
        return Finding("read-back", Verdict.FIT, figure, limit)
    advice = "allow retained messages, and check the broker's memory and the access list for the delivery identity"
    return Finding("read-back", Verdict.UNFIT, figure, limit, advice)


_MAY_WRITE = "allow the delivery identity to publish and read chunk/+, and allow retained messages"


def _lookup(figures: Figures) -> Finding:
    few, many = figures.lookup_few_s, figures.lookup_many_s
    limit = f"at most {LOOKUP_RATIO:g} x as long as among few, or {LOOKUP_SLACK_S * 1000:g} ms more"
    if few is None or many is None:
        return _unknown("retained lookup", figures, limit)
    figure = (
        f"{WINDOW_NEEDED} topics in {few * 1000:.1f} ms among few, {many * 1000:.1f} ms among {figures.lookup_others}"
    )
    if many <= max(few * LOOKUP_RATIO, few + LOOKUP_SLACK_S):
        return Finding("retained lookup", Verdict.FIT, figure, limit)
    advice = "this broker looks at every retained topic for each subscription: give it few chunks, or use mirrors"
    return Finding("retained lookup", Verdict.UNFIT, figure, limit, advice)


def _windows(figures: Figures, qos: int) -> Finding:
    name = f"windows, QoS {qos}"
    of = {window: came for (found, window), came in sorted(figures.windows.items()) if found == qos}
    limit = f"{WINDOW_NEEDED} chunks of 64 KiB reach a slow reader whole"
    if not of:
        return _unknown(name, figures, limit)
    figure = ", ".join(f"{came}/{window}" for window, came in of.items())
    whole = _largest_whole(figures, qos)
    if whole >= 2 * MAX_WINDOW:
        return Finding(name, Verdict.FIT, figure, limit)
    if whole < WINDOW_NEEDED:
        verdict = Verdict.UNFIT if qos == best_qos(figures) else Verdict.LIMITED
        return Finding(name, verdict, figure, limit, "raise the broker's queue limits, in messages and in bytes")
    advice = f"losses begin above {whole}: set download.max_window = {_safe(whole)} on devices"
    return Finding(name, Verdict.LIMITED, figure, limit, advice)


def _wildcard(figures: Figures) -> Finding:
    limit = f"{WILDCARD_NEEDED} retained messages come by one wildcard"
    if figures.wildcard_found is None:
        return _unknown("wildcard", figures, limit)
    figure = f"{figures.wildcard_found} of {figures.wildcard_of} came"
    if figures.wildcard_found >= min(WILDCARD_NEEDED, figures.wildcard_of):
        return Finding("wildcard", Verdict.FIT, figure, limit)
    advice = "raise the broker's queue limit in messages: announcements come to devices by wildcard"
    return Finding("wildcard", Verdict.UNFIT, figure, limit, advice)


def _packets(figures: Figures) -> Finding:
    limit = "a chunk of 262,144 B comes back whole"
    if figures.chunk_ok is None:
        return _unknown("packet size", figures, limit)
    figure = f"{'came back' if figures.chunk_ok else 'did not come back'}; 1 MiB: {figures.oversize or 'not tried'}"
    if figures.chunk_ok:
        return Finding("packet size", Verdict.FIT, figure, limit)
    return Finding("packet size", Verdict.UNFIT, figure, limit, "set max_packet_size to 300,000 B or more")


def _access(figures: Figures) -> Finding:
    limit = "a device writes no topic but its own and reads no other device's offer"
    if not figures.forged:
        return Finding(
            "access list",
            Verdict.UNKNOWN,
            figures.skipped or "no device identity was given",
            limit,
            "name one with --device-certificate and --device-key",
        )
    kept = [topic for topic, was_kept in figures.forged.items() if was_kept]
    if kept or figures.spied:
        found = f"a device wrote {', '.join(kept)}" if kept else "a device read another device's offer"
        return Finding("access list", Verdict.UNFIT, found, limit, "load the access lists of broker-config/")
    return Finding("access list", Verdict.FIT, f"{len(figures.forged)} forgeries dropped", limit)


def _qos(figures: Figures) -> Finding:
    limit = f"QoS 1 at {QOS1_SHARE:.0%} of QoS 0 or more"
    if len(figures.qos_rate) < 2:
        return _unknown("QoS cost", figures, limit)
    fast, slow = figures.qos_rate[0], figures.qos_rate[1]
    figure = f"QoS 0 {fast / 1e6:.1f} MB/s, QoS 1 {slow / 1e6:.1f} MB/s"
    if best_qos(figures) == 1:
        return Finding("QoS cost", Verdict.FIT, figure, limit)
    return Finding(
        "QoS cost", Verdict.LIMITED, figure, limit, "set download.qos = 0 on devices; what is lost is asked for again"
    )


def _clearing(figures: Figures) -> Finding:
    limit = "an empty message clears a topic"
    if figures.cleared is None:
        return _unknown("clearing", figures, limit)
    if figures.cleared:
        return Finding("clearing", Verdict.FIT, "cleared", limit)
    return Finding(
        "clearing", Verdict.UNFIT, "still there", limit, "what is cleared must be gone, or the broker fills up"
    )


def _unknown(probe: str, figures: Figures, limit: str) -> Finding:
    return Finding(probe, Verdict.UNKNOWN, figures.skipped or "not probed", limit)
