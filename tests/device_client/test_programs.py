"""Programs of the owner's: what they are given and what is kept of what they say. Ends and kills: verification/."""

import asyncio
from pathlib import Path

import pytest

from device_client.programs import LOG_BYTES, MAX_OUT_BYTES, _Pipe, run_program


async def test_input_and_output_apart() -> None:
    """A hook reads a question and answers with a line; what it complains about is its log."""
    ended = await run_program(
        ["sh", "-c", "cat; echo why >&2; exit 21"], 20, {}, given=b'{"phase":"install"}', apart=True
    )
    assert (ended.code, ended.out, ended.log, ended.ok) == (21, '{"phase":"install"}', "why\n", False)
    assert ended.detail == "program sh ended with code 21"


async def test_output_has_a_bound() -> None:
    """The beginning of what is read by a machine, the end of what is read by a person."""
    chatty = "yes | head -c 1000000; yes n | head -c 1000000 >&2; echo end >&2"
    ended = await run_program(["sh", "-c", chatty], 20, {}, apart=True)
    assert (len(ended.out), ended.out[:4]) == (MAX_OUT_BYTES, "y\ny\n")
    assert (len(ended.log), ended.log[-6:]) == (LOG_BYTES, "n\nend\n")


async def test_too_much_input_is_a_mistake_of_the_caller() -> None:
    """It would not fit in the pipe, and the agent would wait for a program that reads nothing."""
    with pytest.raises(ValueError, match="at most 16384 B"):
        await run_program(["cat"], 1, {}, given=bytes(16_385))


async def test_descriptors_of_the_caller(tmp_path: Path) -> None:
    """A file as its input, and one that it keeps open under the same number."""
    (tmp_path / "in").write_text("long")
    with (tmp_path / "in").open("rb") as stdin, (tmp_path / "kept").open("wb") as kept:
        ended = await run_program(
            ["sh", "-c", f"cat; echo kept > /proc/self/fd/{kept.fileno()}"],
            20,
            {},
            stdin=stdin.fileno(),
            inherited=(kept.fileno(),),
        )
        stdin.seek(0)
    assert (ended.log, (tmp_path / "kept").read_text()) == ("long", "kept\n")


async def test_nothing_stays_open() -> None:
    """Neither after a program that ran nor after one that could not be run."""
    await run_program(["true"], 20, {}, given=b"x", apart=True)
    before = _open_files()
    for argv in (["true"], ["/no/such"], ["cat"]):
        await run_program(argv, 20, {}, given=b"x", apart=True)
    await asyncio.sleep(0)
    assert _open_files() == before


async def test_a_cancellation_is_not_lost_where_the_program_ends_just_then() -> None:
    """Who is told to stop while the last output comes in stops; an agent would go on without end."""
    pipe = _Pipe()
    pipe.begin()
    ending = asyncio.create_task(pipe.end())
    assert pipe._reading
    pipe._reading.add_done_callback(lambda _: ending.cancel())
    with pytest.raises(asyncio.CancelledError):
        await ending


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
