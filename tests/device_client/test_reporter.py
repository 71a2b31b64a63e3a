"""What the device says: signed by its own key, in order, always small enough, and nothing without a line."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib.dsse import Envelope

from device_client.agent.journal import Update
from device_client.download.progress import Standing
from device_client.reporter import will
from protocol.envelopes import open_envelope, verify_with
from protocol.errors import ErrorCode
from protocol.mqtt.connection import ConnectionLost, PublishRefused
from protocol.reports import STATE_TYPE, Reason, StateReport
from protocol.states import Phase, State
from protocol.topics import RULES, Kind
from tests.device_client.lab import Lab, Line


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """A device; each test has a line of its own."""
    return Lab(tmp_path_factory.mktemp("device") / "home")


def _connected(lab: Lab, session: int = 7) -> Line:
    lab.line = Line()
    return lab.connect(session)


def _update(lab: Lab, **changes: Any) -> Update:
    return Update(offer=lab.offer(lab.publish()), nonce="asked-001", **changes)


async def test_reports_are_ordered_and_signed(lab: Lab) -> None:
    """(session, seq) rises with each signed report and begins anew with each session; the device's key signs."""
    line = _connected(lab)
    await lab.reporter.inventory(lab.settings, "1.0.0", None, [])
    await lab.reporter.readiness("r", 1, "asked-001", Phase.INSTALL, [], ready=True, stale=False)
    await lab.reporter.state(_update(lab, state=State.VERIFYING), "1.1.0")
    kinds = ("inventory", "readiness", "state")
    assert [(line.reports(kind)[0]["session"], line.reports(kind)[0]["seq"]) for kind in kinds] == [
        (7, 1), (7, 2), (7, 3),
    ]  # fmt: skip
    raw = line.sent[-1][1]
    verify = verify_with(lab.device_signer.public_key)
    report, _ = open_envelope(raw, RULES[Kind.STATE].max_bytes, STATE_TYPE, verify, StateReport)
    assert (report.state, report.nonce, report.running_version) == (State.VERIFYING, "asked-001", "1.1.0")
    lab.connect(8)
    await lab.reporter.inventory(lab.settings, None, None, [])
    assert (line.reports("inventory")[1]["session"], line.reports("inventory")[1]["seq"]) == (8, 1)


async def test_without_a_line_nothing_is_said(lab: Lab) -> None:
    """Nothing is queued, nothing is raised; whoever must be heard repeats it."""
    line = _connected(lab)
    lab.reporter.detach()
    assert not lab.reporter.is_connected
    await lab.reporter.state(_update(lab), None)
    await lab.reporter.readiness("r", 1, "asked-001", Phase.DOWNLOAD, [], ready=True, stale=False)
    await lab.reporter.inventory(lab.settings, None, None, [])
    await lab.reporter.progress(_update(lab), Standing())
    await lab.reporter.want("r", ["ab" * 32])
    await lab.reporter.presence(online=True)
    assert line.sent == []


@pytest.mark.parametrize("failure", [ConnectionLost("gone"), PublishRefused("not authorised")])
async def test_a_line_that_fails_is_no_error(lab: Lab, failure: Exception) -> None:
    """A broken connection and a broker that refuses are facts; the report is repeated later."""
    line = _connected(lab)
    line.failure = failure
    await lab.reporter.state(_update(lab), None)
    assert line.sent == []


async def test_who_waits_to_install_has_fetched(lab: Lab) -> None:
    """The orchestrator's word for it is fetched, with the reasons why it does not go on."""
    line = _connected(lab)
    reasons = [Reason(gate="power", code="battery_low")]
    await lab.reporter.state(_update(lab, state=State.WAITING, phase=Phase.INSTALL, reasons=reasons), None)
    await lab.reporter.state(_update(lab, state=State.WAITING, phase=Phase.ACTIVATE), None)
    said = [(report["state"], [reason["code"] for reason in report["reasons"]]) for report in line.reports("state")]
    assert said == [("fetched", ["battery_low"]), ("waiting", [])]


async def test_an_abort_names_no_code(lab: Lab) -> None:
    """A device that went back because the rollout was aborted says rolled_back and why, and blames no release."""
    line = _connected(lab)
    await lab.reporter.state(_update(lab, state=State.ROLLED_BACK, detail="the rollout was aborted"), "1.0.0")
    report = line.reports("state")[0]
    assert "code" not in report
    assert (report["state"], report["detail"]) == ("rolled_back", "the rollout was aborted")


@given(
    unit=st.text(st.sampled_from('\ufffd"\\\n\U0001f525a'), min_size=1, max_size=8),
    detail=st.text(st.sampled_from('é"\n\U0001f525'), max_size=500),
    count=st.integers(0, 32),
)
def test_an_outcome_is_never_too_large_to_be_said(lab: Lab, unit: str, detail: str, count: int) -> None:
    """Whatever a health check wrote: state, code and nonce arrive, and as much of the log as fits."""
    log = (unit * 10_240)[:10_240]
    reasons = [Reason(gate="power", code="battery_low", detail=detail)] * count
    update = _update(lab, state=State.ROLLED_BACK, code=ErrorCode.HEALTH, log=log, detail=detail, reasons=reasons)
    report = _said(lab, lab.reporter.state(update, "1.0.0"), "state")
    assert (report["state"], report["code"], report["nonce"]) == ("rolled_back", "E_HEALTH", "asked-001")
    if not count:
        assert log.endswith(report["log"])
        assert len(report["log"]) > 2000


@given(detail=st.text(st.sampled_from('é"\n\U0001f525'), max_size=500), count=st.integers(0, 40))
def test_readiness_is_never_too_large_to_be_said(lab: Lab, detail: str, count: int) -> None:
    """However many gates are shut for however long reasons."""
    reasons = [Reason(gate="power", code="battery_low", detail=detail)] * count
    work = lab.reporter.readiness("r", 1, "asked-001", Phase.INSTALL, reasons, ready=not reasons, stale=True)
    report = _said(lab, work, "readiness")
    assert (report["nonce"], report["ready"], report["stale"]) == ("asked-001", not reasons, True)
    assert bool(report["reasons"]) == bool(reasons)


def _said(lab: Lab, work: Any, kind: str) -> dict[str, Any]:
    line = _connected(lab)
    with pytest.raises(StopIteration):  # the line waits for nothing, so the work ends by itself
        while True:
            work.send(None)
    ((topic, payload),) = line.sent
    assert topic.endswith(kind)
    assert len(payload) <= RULES[Kind.STATE if kind == "state" else Kind.READINESS].max_bytes
    return dict(json.loads(Envelope.from_dict(json.loads(payload)).payload))


async def test_hints_have_their_bounds(lab: Lab) -> None:
    """A want names at most a window of chunks."""
    line = _connected(lab)
    await lab.reporter.want("r", ["ab" * 32] * 70)
    assert len(line.reports("want")[0]["cids"]) == 64


async def test_an_inventory_that_is_too_large_is_dropped_with_a_line(lab: Lab) -> None:
    """Labels of a size that no ingest would take: it is logged, and nothing breaks."""
    line = _connected(lab)
    labels = {f"label-{number}": "\U0001f525" * 64 for number in range(200)}
    settings = lab.settings.model_copy(update={"device": lab.settings.device.model_copy(update={"labels": labels})})
    await lab.reporter.inventory(settings, "1.0.0", None, [])
    assert line.sent == []


def test_the_will_ends_only_its_own_session(lab: Lab) -> None:
    """A will that comes late says which session ended."""
    topic, farewell = will("d1", lab.topics, 7)
    assert topic.endswith("up/d1/presence")
    assert farewell.model_dump() == {"v": "1.0", "session": 7, "online": False}


def test_no_secret_is_said(lab: Lab) -> None:
    """The offer's key wrap stays where it is: a report names the release, not the key."""
    update = _update(lab, state=State.FAILED)
    report = _said(lab, lab.reporter.state(update, "1.0.0"), "state")
    assert update.offer.key_wrap
    assert update.offer.key_wrap not in json.dumps(report)
