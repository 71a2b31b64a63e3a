"""The agent's log: one line a thing, and never what a frame held when it broke."""

import json

import pytest
import structlog

from device_client.logs import log_to_stderr


def test_a_traceback_holds_no_values(capsys: pytest.CaptureFixture[str]) -> None:
    """A bug is logged with where it was, without the local variables: one of them may be a key."""
    log_to_stderr()
    try:
        content_key = "hush-4711"
        raise ValueError(f"a key of {len(content_key)} letters does not fit")
    except ValueError:
        structlog.get_logger("test").exception("effect broke")
    line = capsys.readouterr().err
    assert json.loads(line)["event"] == "effect broke"
    assert "test_logs.py" in line
    assert "hush-4711" not in line
    assert "a key of 9 letters" in line
