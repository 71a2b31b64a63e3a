"""logind, mocked on a bus of its own: who inhibits, who sits there, and the lock that is held meanwhile."""

import asyncio
import time
from collections.abc import Iterator

import pytest

from device_client.errors import UnreachableError
from device_client.gates.gate import GateContext, Ready, Verdict, Wait
from device_client.gates.logind import LogindGate, judge
from device_client.logind import Inhibitor, Logind, Presence, Session
from device_client.shutdown_lock import ShutdownLock
from device_client.system_bus import SystemBus
from protocol.manifest import Policy
from protocol.states import Phase
from tests.device_client.buses import Bus, private_bus

SERVICE, PATH, SESSION = "org.freedesktop.login1", "/org/freedesktop/login1", "org.freedesktop.login1.Session"
NOWHERE = Logind(SystemBus("unix:path=/nowhere"))


@pytest.fixture(scope="module")
def bus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bus]:
    with private_bus(tmp_path_factory.mktemp("b")) as found:
        found.start("logind", SERVICE)
        yield found


def _context(phase: Phase = Phase.INSTALL, *, allow_in_use: bool | None = None) -> GateContext:
    return GateContext(phase, "r", 0, Policy(allow_in_use=allow_in_use), "ab" * 32)


def test_sessions_with_a_seat(bus: Bus) -> None:
    """A person on a seat is seen, active or not; a session over the network and a greeter are not."""
    session = f"{PATH}/session"
    bus.mock(SERVICE, PATH, "AddSession", "ssusb", "c1", "seat0", 500, "joe", True)
    bus.mock(SERVICE, PATH, "AddSession", "ssusb", "c2", "seat1", 501, "ann", False)
    bus.mock(SERVICE, PATH, "AddSession", "ssusb", "c3", "seat2", 502, "gdm", True)
    bus.set(SERVICE, f"{session}/c3", SESSION, "Class", ("s", "greeter"))
    assert Logind(bus.bus).presence() == Presence(
        (), (Session("joe", "seat0", True, False), Session("ann", "seat1", False, False))
    )
    bus.set(SERVICE, f"{session}/c1", SESSION, "IdleHint", ("b", True))
    assert Logind(bus.bus).presence().sessions[0].is_idle


async def test_the_lock_is_seen_and_released(bus: Bus) -> None:
    """It blocks shutdown and sleep in the block, and is gone after it, also when the step fails or is cancelled."""
    logind = Logind(bus.bus)

    async def held() -> list[Inhibitor]:
        return list((await asyncio.to_thread(logind.presence)).inhibitors)

    async def gone() -> bool:
        end = time.monotonic() + 5
        while await held() and time.monotonic() < end:
            await asyncio.sleep(0.01)
        return not await held()

    with pytest.raises(ValueError, match="the step failed"):
        async with ShutdownLock(logind).held("installing 2.0.0"):
            (found,) = await held()
            raise ValueError("the step failed")
    assert (found.what, found.who, found.why, found.blocks) == (
        frozenset({"shutdown", "sleep"}),
        "flagship-device",
        "installing 2.0.0",
        True,
    )
    assert await gone()

    async def step() -> None:
        async with ShutdownLock(logind).held("installing"):
            pass

    for _ in range(5):  # cancelled while the lock is being taken
        task = asyncio.create_task(step())
        await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert await gone()


async def test_no_lock_is_no_obstacle() -> None:
    """Without a logind, or where the owner wants none, the step is done all the same."""
    done = []
    for lock in (ShutdownLock(), ShutdownLock(NOWHERE)):
        async with lock.held("installing"):
            done.append(lock)
    assert len(done) == 2


async def test_the_gate(bus: Bus) -> None:
    """An inhibitor shuts it from the install on, unless the policy allows to install in use, or it is our own."""
    presence = Presence((Inhibitor(frozenset({"shutdown"}), "player", "a film", True, 4711),), ())
    gate = LogindGate(lambda: presence, waits=False)
    shut = [Wait("inhibited", "shutdown or sleep is inhibited by player: a film")]
    assert await gate.judge(_context()) == shut
    assert await gate.judge(_context(Phase.ACTIVATE, allow_in_use=False)) == shut
    assert await gate.judge(_context(Phase.DOWNLOAD)) == Ready()
    assert await gate.judge(_context(allow_in_use=True)) == Ready()
    assert judge(presence, 4711) == []
    real = LogindGate(Logind(bus.bus).presence, waits=True)
    assert isinstance(await real.judge(_context()), list)


@pytest.mark.parametrize(
    ("inhibitor", "shuts"),
    [
        (Inhibitor(frozenset({"sleep", "idle"}), "a", "b", True, 1), True),
        (Inhibitor(frozenset({"idle", "handle-lid-switch"}), "a", "b", True, 1), False),
        (Inhibitor(frozenset({"shutdown"}), "a", "b", False, 1), False),
    ],
    ids=["sleep", "only idle", "only a delay"],
)
def test_which_inhibitors_count(inhibitor: Inhibitor, shuts: bool) -> None:
    """Those that block a shutdown or sleep; who only wants to be told before, or keeps the screen on, does not."""
    assert bool(judge(Presence((inhibitor,), ()), 2)) is shuts


@pytest.mark.parametrize(
    ("session", "shuts"),
    [
        (Session("joe", "seat0", True, False), True),
        (Session("joe", "seat0", False, False), False),
        (Session("joe", "seat0", True, True), False),
    ],
    ids=["at work", "in the background", "idle"],
)
def test_which_sessions_count(session: Session, shuts: bool) -> None:
    """A person's session in the foreground in which somebody does something."""
    verdicts: list[Verdict] = judge(Presence((), (session,)), 2)
    assert [verdict.code for verdict in verdicts if isinstance(verdict, Wait)] == (["session"] if shuts else [])


def test_all_reasons_and_no_cursor_moves() -> None:
    """Inhibitors and sessions are reasons of their own; what programs call themselves moves no cursor."""
    many = tuple(Inhibitor(frozenset({"sleep"}), f"p{n}", "\x1b[2J", True, 1) for n in range(5))
    inhibited, session = judge(Presence(many, (Session("joe", "seat0", True, False),)), 2)
    assert isinstance(inhibited, Wait)
    assert inhibited.detail.endswith("by p0: ?[2J; p1: ?[2J; p2: ?[2J and 2 more")
    assert isinstance(session, Wait)
    assert "joe on seat0" in session.detail


async def test_no_logind() -> None:
    """Nothing is known, so nothing shuts it unless the owner says so; by default nobody is asked."""
    assert await LogindGate(NOWHERE.presence, waits=False).judge(_context()) == Ready()
    verdict = await LogindGate(NOWHERE.presence, waits=True).judge(_context())
    assert isinstance(verdict, Wait)
    assert verdict.code == "unknown"
    assert await LogindGate(None, waits=True).judge(_context()) == Ready()
    with pytest.raises(UnreachableError):
        NOWHERE.inhibit("x", block=True)
