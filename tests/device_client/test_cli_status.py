"""What ``flagship-device status`` prints."""

from typing import Any

import pytest

from device_client.cli_status import lines_of, show_status, transferred

TRANSFER: dict[str, Any] = {
    "percent": 43.2,
    "present_bytes": 42_000_000,
    "fetched_bytes": 12_100_000,
    "copied_bytes": 0,
    "delta_bytes": 0,
    "total_bytes": 98_100_000,
    "rate_bytes_s": 0.0,
    "remaining_s": None,
}
ANSWER: dict[str, Any] = {
    "device": "d1",
    "connected": True,
    "running": {"app": "1.0.0"},
    "update": {
        "offer": {"rollout": "r-1"},
        "version": "1.1.0",
        "state": "downloading",
        "phase": None,
        "reasons": [],
        "code": None,
        "detail": "",
    },
    "transfer": TRANSFER,
    "source": "from mqtt",
    "sources": [],
}


def test_a_download_says_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    """Percent, bytes by their way, rate, time."""
    moving = {
        **TRANSFER,
        "copied_bytes": 30_000_000,
        "delta_bytes": 400_000,
        "rate_bytes_s": 2.1e6,
        "remaining_s": 26.4,
    }
    show_status({**ANSWER, "transfer": moving})
    assert capsys.readouterr().out.splitlines() == [
        "d1: connected, runs app 1.0.0",
        "rollout r-1: 1.1.0 downloading",
        "  43 % of 98.10 MB: fetched 12.10 MB, by delta 0.40 MB, copied 30.00 MB; 2.10 MB/s, 26 s left",
        "  from mqtt",
    ]


def test_what_is_not_known_is_not_said(capsys: pytest.CaptureFixture[str]) -> None:
    """No rate while nothing moves, no line without a transfer, no update where none is open."""
    assert transferred(TRANSFER) == "43 % of 98.10 MB: fetched 12.10 MB"
    show_status({**ANSWER, "transfer": None, "source": ""})
    show_status({**ANSWER, "transfer": None, "update": None, "connected": False, "running": {}})
    assert capsys.readouterr().out.splitlines() == [
        "d1: connected, runs app 1.0.0",
        "rollout r-1: 1.1.0 downloading",
        "d1: not connected, runs nothing",
        "no update is open",
    ]


def test_what_is_wrong_with_a_source_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """Why it is not asked, or what went wrong with it; of those that are fine, nothing."""
    sources = [
        {"name": "mqtt", "is_ready": True, "trouble": ""},
        {"name": "/media/usb", "is_ready": False, "trouble": "/media/usb/chunks: not there"},
        {"name": "https://m", "is_ready": True, "trouble": "m: it answered 500, expected a chunk"},
    ]
    show_status({**ANSWER, "sources": sources, "update": None})
    assert capsys.readouterr().out.splitlines() == [
        "d1: connected, runs app 1.0.0",
        "  not asked: /media/usb: /media/usb/chunks: not there",
        "  source: https://m: m: it answered 500, expected a chunk",
        "no update is open",
    ]


GATES: dict[str, Any] = {
    "rollout": "r-1",
    "phase": "install",
    "at": "2026-11-25T12:00:00Z",
    "again_in_s": 4.6,
    "answers": [
        {"gate": "power", "verdict": "ready", "code": "", "detail": "no battery: on mains", "retry_after_s": 0},
        {"gate": "window", "verdict": "wait", "code": "closed", "detail": "opens at 22:00", "retry_after_s": 90.0},
        {"gate": "hook", "verdict": "refuse", "code": "no", "detail": "", "retry_after_s": 0},
    ],
}
OUTCOME: dict[str, Any] = {
    "rollout": "r-0",
    "version": "1.0.0",
    "state": "rolled_back",
    "code": "E_HEALTH",
    "detail": "ended with code 1",
    "at": "2026-11-24T12:00:00Z",
}
WAITING: dict[str, Any] = {**ANSWER["update"], "state": "waiting", "phase": "install"}


def test_every_gate_has_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Open or not, with its figure; then what else is announced, and how the last update ended."""
    more = {"gates": [GATES], "announcements": {"r-1": "install", "r-2": "hold"}, "last_outcome": OUTCOME}
    show_status({**ANSWER, "update": WAITING, "transfer": None, **more})
    assert capsys.readouterr().out.splitlines() == [
        "d1: connected, runs app 1.0.0",
        "rollout r-1: 1.1.0 waiting (install)",
        "  gates to install, asked at 2026-11-25T12:00:00Z; again in 5 s",
        "    ready  power: no battery: on mains",
        "    wait   window: opens at 22:00 (in 90 s)",
        "    refuse hook: no",
        "announced: rollout r-2: hold",
        "last: rollout r-0: 1.0.0 rolled_back at 2026-11-24T12:00:00Z: E_HEALTH: ended with code 1",
    ]


def test_open_gates_leave_the_word_to_the_orchestrator(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing on the device is in the way, and that is said."""
    show_status({**ANSWER, "update": WAITING, "gates": [{**GATES, "answers": GATES["answers"][:1]}]})
    assert "every gate is open; it waits for the orchestrator" in capsys.readouterr().out


def test_what_is_damaged_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """Of what runs, and of what cannot be read."""
    show_status({**ANSWER, "update": None, "trouble": "current: no link", "integrity": {"fault": "file 'app'"}})
    assert capsys.readouterr().out.splitlines()[1:3] == ["  damaged: current: no link", "  damaged: file 'app'"]


def test_no_word_moves_the_cursor() -> None:
    """Hooks, files and the network choose words; a terminal shows them and obeys none."""
    hostile = "\x1b[2J\r\n\x9b8m\u202e"
    answers = [{**GATES["answers"][1], "detail": hostile, "gate": hostile}]
    answer = {
        **ANSWER,
        "device": hostile,
        "running": {hostile: hostile},
        "update": {**WAITING, "version": hostile, "code": "E_HEALTH", "detail": hostile},
        "gates": [{**GATES, "answers": answers, "at": hostile}],
        "last_outcome": {**OUTCOME, "detail": hostile},
        "announcements": {hostile: hostile},
        "sources": [{"name": hostile, "is_ready": False, "trouble": hostile}],
        "trouble": hostile,
    }
    lines = list(lines_of(answer, lambda text, _: text))
    assert len(lines) > 8
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize(("no_colour", "painted"), [("", True), ("1", False)])
def test_colour_is_for_terminals_that_want_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], no_colour: str, painted: bool
) -> None:
    """NO_COLOR is obeyed; the words are the same."""
    monkeypatch.setenv("NO_COLOR", no_colour)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    show_status({**ANSWER, "update": WAITING, "gates": [GATES]})
    out = capsys.readouterr().out
    assert ("\x1b[33m    wait   window: opens at 22:00 (in 90 s)\x1b[0m" in out) is painted
    assert ("\x1b" in out) is painted
