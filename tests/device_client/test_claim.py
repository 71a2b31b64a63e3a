"""A claim folder, and which of the answers under it is ours."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from device_client.claim import FILES, Question, _answer, keep_claim, load_claim
from device_client.config import DeviceHome
from device_client.errors import NotFoundError, UsageError
from protocol.enrolment import ClaimAnswer
from protocol.envelopes import encode
from protocol.mqtt.connection import ConnectionLost, Message, Session

ASKED = Question(b"envelope", "1f" * 32, "n" * 32)
SAYS = {
    "fleet": "north",
    "claim": "claim.line-1",
    "enrol": [{"host": "b", "port": 1}],
    "brokers": [{"host": "b", "port": 2}],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A claim folder."""
    place = tmp_path / "claim"
    place.mkdir()
    for name in FILES:
        (place / name).write_text(json.dumps(SAYS) if name == "claim.json" else name)
    return place


def test_a_folder_is_kept_for_the_way_back(folder: Path, tmp_path: Path) -> None:
    """Every file, for this user alone; once more over itself changes nothing."""
    home = DeviceHome(tmp_path / "home")
    home.create()
    claim = load_claim(folder)
    assert claim.ca == b"ca.pem" and claim.root == b"root.json"
    keep_claim(home, claim)
    keep_claim(home, load_claim(home.claim))
    assert {path.name for path in home.claim.iterdir()} == set(FILES)
    assert (home.claim / "claim.key").stat().st_mode & 0o777 == 0o600
    assert load_claim(home.claim).says == claim.says


@pytest.mark.parametrize("missing", FILES)
def test_a_folder_that_lacks_something(folder: Path, missing: str) -> None:
    """The file is named."""
    (folder / missing).unlink()
    with pytest.raises(NotFoundError, match=missing):
        load_claim(folder)


def test_a_damaged_folder(folder: Path) -> None:
    """One sentence that names the place."""
    (folder / "claim.json").write_text(json.dumps(SAYS | {"claim": "line-1"}))
    with pytest.raises(UsageError, match=r"claim\.json: claim"):
        load_claim(folder)


class Heard:
    """A session on which these messages come and then the connection ends."""

    def __init__(self, *messages: Message) -> None:
        self._messages = messages

    async def messages(self) -> AsyncIterator[Message]:
        """In order."""
        for message in self._messages:
            yield message
        await asyncio.sleep(0)
        raise ConnectionLost("ended")


def message(retain: bool = False, **changes: Any) -> Message:
    """An answer."""
    values = {"fleet": "north", "request": ASKED.digest, "nonce": ASKED.nonce, "status": "pending"}
    return Message("t", encode(ClaimAnswer.model_validate(values | changes)), retain, 1)


async def hear(*messages: Message) -> ClaimAnswer:
    """What is taken for the answer."""
    return await _answer(cast(Session, cast(Any, Heard(*messages))), "north", ASKED)


async def test_only_the_answer_to_our_own_question_counts() -> None:
    """Answers to others, an old nonce, another fleet, a retained one, nonsense: passed over."""
    others = (
        message(request="0" * 64),
        message(nonce="m" * 32),
        message(fleet="south"),
        message(retain=True),
        Message("t", b"[" * 20_000, False, 1),
        Message("t", b"x" * 100_000, False, 1),
        Message("t", b"", False, 1),
    )
    assert (await hear(*others, message(status="refused", code="mine"))).code == "mine"
    with pytest.raises(ConnectionLost):
        await hear(*others)
