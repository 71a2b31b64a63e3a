"""The README's table of delivery, written from the JSON file alone: what was found, the goal, and whether it is met."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks._page import between, where

README = Path(__file__).parent.parent.parent / "README.md"
BEGIN, END = "<!-- delivery:begin -->", "<!-- delivery:end -->"
Found = Mapping[str, Any]

NGINX_GOAL, RAW_GOAL = 1.0, 0.85
FLAT_GOAL = 1.1
GOOSEBIT_GOAL = 0.1
WIRE_GOAL, LOSS_FACTOR = 1.01, 1.2
SINGLE_GOAL, HTTPS_GOAL = 10.0, 0.8
IMAGE_GOAL, FILE_GOAL = 1.0, 1.15
PEAK_GOAL_MB, GROWTH_GOAL_MB = 80.0, 5.0
OWN_GOAL = 0.3


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table.

    Attributes:
        met: None where there is no goal.
        why: Where the time or the bytes went; shown where the goal is missed.
    """

    quantity: str
    found: str
    goal: str
    met: bool | None = None
    why: str = ""

    def markdown(self) -> str:
        """The line with its cells."""
        verdict = {True: "met", False: "**missed**", None: ""}[self.met]
        return f"| {self.quantity} | {self.found} | {self.goal} | {verdict} |"


def lines(data: Found) -> list[Line]:
    """Every row that was measured, in the order of the goals."""
    rows = data.get("rows", {})
    return [line for name, make in _ROWS.items() if name in rows for line in make(rows[name])]


def text(data: Found) -> str:
    """The whole table with what it was measured on; empty before anything was."""
    if not data.get("rows"):
        return ""
    machine = data["machine"]
    times = sorted(row["measured_at"][:10] for row in data["rows"].values())
    head = ["| quantity | measured | goal | |", "|---|---|---|---|"]
    found = lines(data)
    missed = [f"- missed: {line.quantity}: {line.why}" for line in found if line.met is False and line.why]
    end = [f"{where(machine)}; {times[-1]}; medians, all samples in", "`benchmarks/results/delivery.json`."]
    return "\n".join([*head, *(line.markdown() for line in found), "", *(missed and [*missed, ""]), *end])


def write(readme: Path, data: Found) -> None:
    """Put the table between the markers.

    Raises:
        ValueError: The file has no markers.
    """
    readme.write_text(between(readme.read_text(), BEGIN, END, text(data)))


def _broker_bytes(row: Found) -> Iterator[Line]:
    rates = {name: found["median"] for name, found in row["mb_per_cpu_s"].items()}
    nginx, raw = row["ratio_nginx"]["median"], row["ratio_raw"]["median"]
    what = f"MB per broker CPU second, {row['devices']} devices, TLS"
    ours = f"{rates['ours']:.0f}"
    yield Line(
        f"{what}, against nginx in ranges",
        f"{ours} : {rates['nginx']:.0f} = {nginx:.2f}",
        f">= {NGINX_GOAL:g}",
        nginx >= NGINX_GOAL,
    )
    yield Line(
        "the same, against live fan-out by a plain mosquitto",
        f"{ours} : {rates['raw']:.0f} = {raw:.2f}",
        f">= {RAW_GOAL:g}",
        raw >= RAW_GOAL,
    )


def _publishing(row: Found) -> Iterator[Line]:
    fleets = row["fleets"]
    counts = ", ".join(str(fleet["devices"]) for fleet in fleets)
    parts = {"create_s": "packing", "serve_s": "serve", "broker_s": "broker"}
    note = "; ".join(
        f"{what} {', '.join(format(fleet[name]['median'], '.3g') for fleet in fleets)} s"
        for name, what in parts.items()
    )
    for name, what, unit in (("cpu_s", "CPU", "s"), ("broker_mb", "bytes through the broker", "MB")):
        values = [fleet[name]["median"] for fleet in fleets]
        spread = max(values) / min(values)
        yield Line(
            f"{what} of packing, publishing and read-back of {row['image_mb']} MB, {counts} devices",
            f"{', '.join(format(value, '.3g') for value in values)} {unit}: {spread - 1:+.1%}",
            f"<= {FLAT_GOAL - 1:+.0%}",
            spread <= FLAT_GOAL,
            note,
        )


def _whole_update(row: Found) -> Iterator[Line]:
    ours, theirs, share = row["ms"]["ours"]["median"], row["ms"]["goosebit"]["median"], row["of_goosebit"]["median"]
    met = share <= GOOSEBIT_GOAL
    parts = ", ".join(f"{name} {found['median']:.1f}" for name, found in row["parts_ms"].items())
    yield Line(
        f"CPU of all servers per device-update of {row['payload_mb']:g} MB, {row['devices']} devices, "
        "against gooseBit 0.2.12 (without TLS)",
        f"{ours:.1f} ms ({parts}) : {theirs:.1f} ms = {share:.2f}",
        f"<= {GOOSEBIT_GOAL:g}",
        met,
        f"the goal is {GOOSEBIT_GOAL * theirs:.1f} ms; for the bytes over TLS the broker takes "
        f"{row['parts_ms']['broker']['median']:.1f} ms (gooseBit sends in the clear), orchestrator and signer "
        f"take {row['parts_ms']['serve']['median']:.1f} ms for {row['messages']:g} signed messages and their records",
    )


def _wire_bytes(row: Found) -> Iterator[Line]:
    ratio = row["wire_per_ciphertext"]["median"]
    what = f"bytes on the wire / ciphertext, a whole update of {row['image_mb']} MB"
    why = (
        f"the device sends {row['up_per_ciphertext']['median']:.4f}; chunks have {row['mean_chunk_bytes']} B on average"
    )
    yield Line(f"{what}, no loss", f"{ratio:.4f}", f"<= {WIRE_GOAL:g}", ratio <= WIRE_GOAL, why)
    for lossy in row["lossy"]:
        loss, ratio = lossy["loss"]["median"], lossy["wire_per_ciphertext"]["median"]
        limit = WIRE_GOAL + LOSS_FACTOR * loss
        yield Line(f"the same, {loss:.1%} of messages lost", f"{ratio:.4f}", f"<= {limit:.4f}", ratio <= limit, why)
    image = row["compressible"]
    found = f"{image['wire_per_ciphertext']:.4f}; of the image {image['wire_per_image']:.3f}"
    yield Line("the same, Python's standard library, no loss", found, "reported")


def _link_speed(row: Found) -> Iterator[Line]:
    for link in row["links"]:
        ours, single, https = (link["mb_s"][name]["median"] for name in ("ours", "single", "https"))
        times, share = link["times_single"]["median"], link["of_https"]["median"]
        allowed = min(SINGLE_GOAL, HTTPS_GOAL * https / single)
        yield Line(
            f"one device, {link['mbit_s']} Mbit/s, {link['round_trip_ms']} ms: "
            "against one chunk at a time, and HTTPS whole file",
            f"{ours:.2f} : {single:.2f} : {https:.2f} MB/s = {times:.1f} x, {share:.2f} x",
            f">= {allowed:.1f} x, >= {HTTPS_GOAL:g} x",
            times >= allowed and share >= HTTPS_GOAL,
            f"{link['image_mb'] / ours:.2f} s in all; an image of one chunk takes {link['one_chunk_s']:.2f} s, from "
            f"the offer to the report; at most {row['window']['bytes'] / 2**20:g} MiB are asked for at once",
        )


def _version_pairs(row: Found) -> Iterator[Line]:
    for pair in row["pairs"]:
        of = pair["of_size"]
        limit = (IMAGE_GOAL if pair["is_image"] else FILE_GOAL) * of["patch_from"]
        ours = " / ".join("-" if of[name] is None else f"{of[name]:.2%}" for name in ("full", "a", "b"))
        peers = " / ".join(f"{of[name]:.2%}" for name in ("patch_from", "xdelta3", "casync", "blocks"))
        yield Line(
            f"bytes to fetch for {pair['name']} {pair['versions'][1]}: full / copied / and delta; against "
            "zstd patch-from / xdelta3 / casync / 4 KiB blocks",
            f"{ours}; {peers}",
            f"<= {limit:.2%}",
            None if of["b"] is None else of["b"] <= limit,
            f"{of['sealed']:.2%} are the sealed manifest: hash, id and key of every chunk, which do not compress",
        )


def _agent_peak(row: Found) -> Iterator[Line]:
    for delta in (False, True):
        peaks = {one["image_mb"]: one["vm_hwm_mb"]["median"] for one in row["agents"] if one["delta"] is delta}
        if not peaks:
            continue
        growth = peaks[max(peaks)] - peaks[min(peaks)]
        yield Line(
            f"most memory of an agent, {' and '.join(str(size) for size in peaks)} MB, {'delta' if delta else 'full'}",
            f"{' and '.join(f'{peak:.1f}' for peak in peaks.values())} MB",
            f"< {PEAK_GOAL_MB:g} MB, growth <= {GROWTH_GOAL_MB:g} MB",
            max(peaks.values()) < PEAK_GOAL_MB and growth <= GROWTH_GOAL_MB,
            f"the manifest of the largest image, parsed and by chunk id, takes {row['manifest_mb']:g} MB",
        )


def _agent_steps(row: Found) -> Iterator[Line]:
    steps = ", ".join(f"{name} {found['median']:.2f}" for name, found in row["ms_per_mb"].items())
    share = row["own_share"]["median"]
    yield Line(
        "CPU of an agent per MB of ciphertext, by step; our own Python",
        f"{row['total_ms_per_mb']['median']:.2f} ms: {steps}; {share:.1%}",
        f"<= {OWN_GOAL:.0%}",
        share <= OWN_GOAL,
        "; ".join(f"`{line}` {part:.1%}" for line, part in row["dearest_lines"].items()),
    )


_ROWS: Mapping[str, Callable[[Found], Iterator[Line]]] = {
    "broker_bytes": _broker_bytes,
    "publishing": _publishing,
    "whole_update": _whole_update,
    "wire_bytes": _wire_bytes,
    "link_speed": _link_speed,
    "version_pairs": _version_pairs,
    "agent_peak": _agent_peak,
    "agent_steps": _agent_steps,
}
