"""An update module under the agent's own steps: a sealed release is fetched, installed, proven, kept or left again."""

from pathlib import Path
from typing import Any, cast

import pytest

from device_client.agent.journal import Update
from device_client.changes import Changes
from device_client.config_installers import InstallerSection
from device_client.installers.installer import InstallError
from device_client.last_update import LastUpdate
from protocol.errors import ContentError, ErrorCode
from protocol.states import State
from tests.device_client.installers.mender_bench import Bench
from tests.device_client.lab import Lab


class Agent:
    """A device that has fetched 1.1.0."""

    def __init__(self, path: Path, **section: Any) -> None:
        self.bench = Bench(path / "bench").make()
        self.lab = lab = Lab(path / "home")
        lab.installer = cast(Any, self.bench.installer)
        self.release = lab.publish(files={"image": b"new"})
        lab.refresh()
        last = LastUpdate(lab.home.state / "last-update")
        self.changes = Changes(InstallerSection(**section), lab.verifier, self.bench.installer, last, lab.fetcher)
        self.update = Update(
            offer=lab.offer(self.release),
            state=State.INSTALLING,
            component="app",
            version="1.1.0",
            from_version="1.0.0",
        )

    async def installed(self) -> "Agent":
        """In place."""
        await self.lab.fetcher.fetch(self.update)
        await self.changes.install(self.update)
        return self


async def test_there(tmp_path: Path) -> None:
    """Its health check runs without a folder; what runs has the digest of the sealed manifest."""
    agent = await Agent(tmp_path, health=["/bin/sh", "-c", "echo $FLAGSHIP_VERSION"]).installed()
    await agent.changes.activate(agent.update)
    proven = await agent.changes.prove(agent.update, agent.lab.verifier.check(agent.release.ref))
    assert (proven.ok, proven.log) == (True, "1.1.0\n")
    await agent.changes.commit(agent.update)
    assert agent.changes.runs(agent.release.ref)
    assert agent.bench.software == "new"


async def test_and_back(tmp_path: Path) -> None:
    """What ran before runs again."""
    agent = await Agent(tmp_path).installed()
    await agent.changes.activate(agent.update)
    await agent.changes.return_to_former(agent.update)
    assert (agent.changes.running_version(), agent.bench.software) == ("1.0.0", "old")


async def test_reboot(tmp_path: Path) -> None:
    """The owner's program is asked for the reboot; after it the same step goes on."""
    bench_says = Agent(tmp_path, reboot=["/bin/false"])
    bench_says.bench.say("NeedsArtifactReboot", "Automatic")
    agent = await bench_says.installed()
    with pytest.raises(InstallError, match="reboot /bin/false ended with code 1"):
        await agent.changes.activate(agent.update)
    agent.bench.reboot()
    await agent.changes.activate(agent.update)
    assert agent.changes.running_version() == "1.1.0"


async def test_an_installed_release_without_a_journal(tmp_path: Path) -> None:
    """It changed the device already, so it is rolled back when nobody knows of it any more."""
    agent = await Agent(tmp_path).installed()
    agent.changes.begin_idle()
    assert (agent.changes.running_version(), agent.bench.software) == ("1.0.0", "old")


async def test_no_way_back(tmp_path: Path) -> None:
    """The agent gives up with the module's reason, and does not say that the former version runs."""
    module = Agent(tmp_path)
    module.bench.say("SupportsRollback", "No")
    agent = await module.installed()
    with pytest.raises(ContentError, match="cannot go back") as failed:
        await agent.changes.return_to_former(agent.update)
    assert failed.value.code is ErrorCode.INSTALL
    assert agent.changes.running_version() is None
