"""What ``flagship-device status`` prints."""

from typing import Any

import pytest

from device_client.cli_status import show_status, transferred

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
