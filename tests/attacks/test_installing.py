"""I: after extraction and installing. What lies on the disk is compared before it runs and before it stays."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from protocol.errors import ErrorCode
from protocol.states import State
from tests.attacks.arena import Arena, Victim
from tests.attacks.catalogue import attack
from tests.attacks.forging import Plan, forge, payload
from tests.integration.small_fleet import installed, make_package, make_tree, until

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def publish(ground: Arena, version: str) -> None:
    """A release with a program that its component's team signed."""
    tree = make_tree(ground.fleet.place, version, 1000)
    (tree / "bin").mkdir()
    (tree / "bin" / "run").write_text("#!/bin/sh\nexec true\n")
    (tree / "bin" / "run").chmod(0o755)
    await ground.fleet.publish(await asyncio.to_thread(make_package, ground.fleet.home, tree, version, 5))


async def tampered_with(ground: Arena, version: str, step: str, tamper: Callable[[Path], object]) -> str:
    """Roll a release out while somebody on the device changes its tree after a step of the installer's.

    Returns:
        What explain says once the device has gone back.
    """
    await publish(ground, version)
    rollout = f"r-{version.replace('.', '-')}"
    async with ground.victim() as victim:
        installer = victim.agent._installer
        do = getattr(installer, step)

        def and_then(*words: Any) -> Any:
            done = do(*words)
            (place,) = victim.home.releases.glob(f"{version}-*")
            tamper(place)
            return done

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(installer, step, and_then)
            await ground.roll_out(rollout, victim, version, halt_count=1)
            found = await ground.fleet.until_state(rollout, "halted")
        said = await ground.explained(victim)
        assert "rolled_back" in said
        assert installed(victim.home) == "1.0.0"
        assert not list(victim.home.releases.glob(f"{version}-*")), "what was tampered with is gone"
        assert found["state"] == "halted"
    await ground.fleet.call("post", f"/rollouts/{rollout}/abort", {})
    return said


@attack("I1", "E_EXEC_SIGNATURE, rolled back")
async def test_i1_a_program_is_changed_after_extraction(ground: Arena) -> None:
    """A local attacker changes a program of the new version between its extraction and the check."""
    said = await tampered_with(
        ground, "2.0.0", "install", lambda place: (place / "bin/run").write_text("#!/bin/evil\n")
    )
    assert ErrorCode.EXEC_SIGNATURE in said


@attack("I2", "E_EXEC_UNLISTED, rolled back")
async def test_i2_a_program_is_added(ground: Arena) -> None:
    """A local attacker adds a program to the new version's tree, not even marked as one that can be run."""
    said = await tampered_with(ground, "2.0.1", "install", lambda place: (place / "bin/more").write_bytes(b"\x7fELF"))
    assert ErrorCode.EXEC_UNLISTED in said


@attack("I3", "E_FORMAT")
async def test_i3_a_manifest_that_leaves_the_tree(ground: Arena) -> None:
    """A thief of the release keys lists manifests with paths and links out of the tree, and with setuid bits."""
    own = payload(ground, "6.4.0")
    first = own.artifact["files"][0]
    outside = "/etc/cron.d/evil"
    spoiled: dict[str, Mapping[str, Any]] = {
        "a path upwards": {"files": _but(own.artifact, path="../evil")},
        "an absolute path": {"files": _but(own.artifact, path=outside)},
        "a path through another": {"files": _but(own.artifact, path=f"a/../../{first['path']}")},
        "a link out of the tree": {"links": [{"path": "etc", "target": "../../../etc"}]},
        "an absolute link": {"links": [{"path": "etc", "target": "/etc"}]},
        "a file through a link": {
            "files": _but(own.artifact, path="etc/evil"),
            "links": [{"path": "etc", "target": "."}],
        },
        "a setuid bit": {"files": _but(own.artifact, mode=0o4755)},
    }
    plans = [
        Plan(f"6.4.{number}", [own.artifact | dict(change)], own.chunks)
        for number, change in enumerate(spoiled.values())
    ]
    async with ground.victim() as victim:
        made = await forge(ground, victim, *plans)
        for attempt, (what, one) in enumerate(zip(spoiled, made, strict=True), 1):
            await ground.order(victim, "r-i3", one.ref, key_wrap=one.wrap(victim), attempt=attempt)
            await until(lambda least=attempt: _refused(victim) >= least, f"{what} is refused")  # type: ignore[misc]
            await until(lambda: victim.stands(State.FAILED), "that ends the attempt")
        assert victim.agent._refusals.counts == {ErrorCode.FORMAT.value: len(spoiled)}
        await ground.fails(victim, ErrorCode.FORMAT)
        assert not list(victim.home.path.rglob("evil"))


@attack("I4", "E_POSTINSTALL, rolled back")
async def test_i4_a_file_is_changed_after_activation(ground: Arena) -> None:
    """A local attacker changes a file of the new version when it already runs, before it has proven itself."""
    said = await tampered_with(ground, "2.0.2", "activate", lambda place: (place / "data").write_bytes(b"x" * 1000))
    assert ErrorCode.POSTINSTALL in said


def _but(artifact: Mapping[str, Any], **changes: Any) -> list[dict[str, Any]]:
    """The artifact's files, the first of them changed."""
    first, *others = artifact["files"]
    return [first | changes, *others]


def _refused(victim: Victim) -> int:
    return victim.agent._refusals.counts[ErrorCode.FORMAT]
