"""``flagship-device status``: what it prints for people, once or every second."""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from device_client.config import load
from device_client.errors import UnreachableError
from device_client.local_socket import request

WATCH_INTERVAL_S = 1.0
_CLEAR = "\x1b[H\x1b[J"
_COLOURS = {"ready": "32", "wait": "33", "refuse": "31"}
_GOOD_OUTCOMES = frozenset({"succeeded", "cancelled", "superseded"})

Paint = Callable[[str, str], str]
"""(text, verdict) -> text in its colour."""


def add_to(verbs: "argparse._SubParsersAction[Any]", home: Callable[..., None]) -> None:
    """Make this command part of ``flagship-device``."""
    status = verbs.add_parser("status", help="what runs, where the open update stands, what each gate says")
    home(status)
    status.add_argument("-o", "--output", choices=("text", "json"), default="text")
    status.add_argument("--watch", action="store_true", help="again every second, until interrupted")
    status.set_defaults(run=_status)


def _status(options: argparse.Namespace) -> None:
    home, _ = load(options.home)
    show = _show_json if options.output == "json" else show_status
    if not options.watch:
        show(request(home.socket, "status"))
        return
    redraws = options.output == "text" and sys.stdout.isatty()
    while True:
        try:
            answer = request(home.socket, "status")
        except UnreachableError as error:  # an update may restart the agent: who watches sees it come back
            answer = {"error": str(error)}
        if redraws:
            print(_CLEAR, end="")
        show(answer)
        sys.stdout.flush()
        time.sleep(WATCH_INTERVAL_S)


def _show_json(answer: dict[str, Any]) -> None:
    print(json.dumps(answer))


def show_status(answer: dict[str, Any]) -> None:
    """Print the agent's answer, in colour on a terminal unless NO_COLOR is set."""
    has_colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    for line in lines_of(answer, _painted if has_colour else lambda text, _: text):
        print(line)


def lines_of(answer: dict[str, Any], paint: Paint) -> Iterator[str]:
    """What runs, what is open, how far the download is, what each gate says, how the last update ended."""
    if "error" in answer:
        yield plain(answer["error"])
        return
    running = ", ".join(f"{name} {version}" for name, version in answer["running"].items()) or "nothing"
    link = "connected" if answer["connected"] else "not connected"
    yield plain(f"{answer['device']}: {link}, runs {running}")
    for trouble in (answer.get("trouble"), (answer.get("integrity") or {}).get("fault")):
        if trouble:
            yield paint(plain(f"  damaged: {trouble}"), "refuse")
    for source in answer["sources"]:
        if source["trouble"]:
            word = "source" if source["is_ready"] else "not asked"
            yield plain(f"  {word}: {source['name']}: {source['trouble']}")
    yield from _update_lines(answer, paint)
    if outcome := answer.get("last_outcome"):
        yield _outcome_line(outcome, paint)


def _update_lines(answer: dict[str, Any], paint: Paint) -> Iterator[str]:
    update, gates = answer["update"], answer.get("gates") or []
    open_rollout = update["offer"]["rollout"] if update else ""
    if update is None:
        yield "no update is open"
    else:
        phase = f" ({update['phase']})" if update["phase"] else ""
        yield plain(f"rollout {open_rollout}: {update['version'] or 'new version'} {update['state']}{phase}")
        if update["offer"].get("offline_until"):
            yield plain(f"  from a medium: acts unasked until {update['offer']['offline_until']}")
        if answer["transfer"]:
            yield f"  {transferred(answer['transfer'])}"
        if update["state"] == "downloading" and answer["source"]:
            yield plain(f"  {answer['source']}")
        of_it = next((judged for judged in gates if judged["rollout"] == open_rollout), None)
        if of_it:
            yield from _gate_lines(of_it, paint)
        else:
            for reason in update["reasons"]:
                yield plain(f"  waits for {reason['gate']}: {reason['detail'] or reason['code']}")
        if update["code"]:
            yield paint(plain(f"  {update['code']}: {update['detail']}"), "refuse")
    for rollout, action in answer.get("announcements", {}).items():
        if rollout != open_rollout:
            yield plain(f"announced: rollout {rollout}: {action}")
            for judged in gates:
                if judged["rollout"] == rollout:
                    yield from _gate_lines(judged, paint)


def _gate_lines(judged: dict[str, Any], paint: Paint) -> Iterator[str]:
    again = "" if judged["again_in_s"] is None else f"; again in {judged['again_in_s']:.0f} s"
    yield plain(f"  gates to {judged['phase']}, asked at {judged['at']}{again}")
    for answer in judged["answers"]:
        detail = answer["detail"] or answer["code"]
        opens = f" (in {answer['retry_after_s']:.0f} s)" if answer["retry_after_s"] else ""
        line = f"    {answer['verdict']:<6} {answer['gate']}{f': {detail}' if detail else ''}{opens}"
        yield paint(plain(line), answer["verdict"])
    if all(answer["verdict"] == "ready" for answer in judged["answers"]):
        yield "    every gate is open; it waits for the orchestrator"


def _outcome_line(outcome: dict[str, Any], paint: Paint) -> str:
    why = f": {outcome['code']}: {outcome['detail']}" if outcome["code"] else ""
    line = f"last: rollout {outcome['rollout']}: {outcome['version'] or 'new version'} {outcome['state']}"
    verdict = "ready" if outcome["state"] in _GOOD_OUTCOMES else "refuse"
    return paint(plain(f"{line} at {outcome['at']}{why}"), verdict)


def transferred(transfer: dict[str, Any]) -> str:
    """Bytes by their way, rate and remaining time, in one line."""
    ways = ", ".join(
        f"{word} {_megabytes(transfer[name])}"
        for word, name in (("fetched", "fetched_bytes"), ("by delta", "delta_bytes"), ("copied", "copied_bytes"))
        if transfer[name] or word == "fetched"
    )
    text = f"{transfer['percent']:.0f} % of {_megabytes(transfer['total_bytes'])}: {ways}"
    if transfer["remaining_s"]:
        text += f"; {_megabytes(transfer['rate_bytes_s'])}/s, {transfer['remaining_s']:.0f} s left"
    return text


def plain(text: object) -> str:
    """One line without a character that could move a cursor: its words come from hooks, files and the network."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in str(text))


def _painted(text: str, verdict: str) -> str:
    return f"\x1b[{_COLOURS[verdict]}m{text}\x1b[0m"


def _megabytes(size_bytes: float) -> str:
    return f"{size_bytes / 1e6:.2f} MB"
