"""Which way is tried next: what is new first, what works after it, every broker of each."""

from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pytest

from device_client import connection_sets, identity, new_identity
from device_client.clock import FlooredClock
from device_client.config import DeviceSettings
from device_client.identity_files import load_device_key
from device_client.uplink import Uplink, ways
from protocol.clock import ManualClock
from protocol.enrolment import BrokerAddress, ConnectionTarget
from tests.device_client.identities import NOW, TestCa, enrolled

CA, NEW_CA = TestCa(), TestCa("new")


def test_new_identities_and_ways_come_first_and_the_old_ones_after(tmp_path: Path) -> None:
    """A new identity is not tried before its certificate came; nothing that works is left out."""
    home = enrolled(tmp_path / "home", CA)
    assert [(way.address.host, way.new) for way in ways(home)] == [("broker.example", None)]
    new = new_identity.prepare(home, lambda _: b"request")
    assert len(ways(home)) == 1
    certificate = CA.issue(load_device_key(new.files).public_key())
    new_identity.complete(new, certificate, identity.load_enrolment(home), NOW)
    assert [way.new is not None for way in ways(home)] == [True, False]
    brokers = [BrokerAddress(host=host, port=1) for host in ("x.example", "y.example")]
    connection_sets.offer(home, ConnectionTarget(fleet="north", version=1, ca=NEW_CA.pem, brokers=brokers))
    found = [(way.address.host, way.new is not None, way.connection.ca.read_text() == CA.pem) for way in ways(home)]
    assert found == [
        ("x.example", True, False),
        ("y.example", True, False),
        ("x.example", False, False),
        ("y.example", False, False),
        ("broker.example", True, True),
        ("broker.example", False, True),
    ]


@dataclass
class Connected:
    """The end of a session that a test holds."""

    ended: list[str] = field(default_factory=list)

    def end(self, why: str) -> None:
        """As ``Session.end``."""
        self.ended.append(why)


@pytest.mark.parametrize("others", [0, 1], ids=["the only one", "one of two"])
async def test_a_broker_is_left_only_where_there_is_another(tmp_path: Path, others: int) -> None:
    """A slow broker is better than none."""
    home = enrolled(tmp_path / "home", CA)
    if others:
        target = ConnectionTarget(fleet="north", version=1, ca=CA.pem, brokers=[BrokerAddress(host="other", port=1)])
        connection_sets.offer(home, target)
    settings = DeviceSettings.model_validate({"device": {"id": "d1", "product": "gateway", "hardware": "rev-a"}})
    ignored: Any = None
    uplink = Uplink(home, settings, ignored, ignored, FlooredClock(ManualClock(NOW)), Random(1), ignored, ignored)
    assert not uplink.leave("not connected"), "there is nothing to leave"
    await uplink._tries()
    session: Any = Connected()
    uplink._session = session
    assert uplink.leave("too slow") == bool(others)
    assert session.ended == ["too slow"] * others
