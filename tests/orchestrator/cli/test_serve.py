"""``flagship serve``'s log: never what a frame held when it broke."""

import pytest
import structlog

from orchestrator.cli import serve


@pytest.mark.parametrize("person", [True, False])
def test_a_traceback_holds_no_values(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, person: bool
) -> None:
    """A bug is logged with where it was, without the local variables, for a terminal and for a file alike."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: person)
    serve.log_to_stderr()
    try:
        director_key = "hush-4711"
        raise ValueError(f"a key of {len(director_key)} letters does not fit")
    except ValueError:
        structlog.get_logger("test").exception("signing broke")
    line = capsys.readouterr().err
    assert "signing broke" in line
    assert "test_serve.py" in line
    assert "a key of 9 letters" in line
    assert "hush-4711" not in line
