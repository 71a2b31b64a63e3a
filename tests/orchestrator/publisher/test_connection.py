"""The connection target: signed by targets and snapshot, checked as a device would, each one a version higher."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from tuf.api.metadata import Metadata, MetaFile, Timestamp

from orchestrator.cli.main import main
from orchestrator.errors import NotAllowedError, NotFoundError, OperationError, UsageError
from orchestrator.publisher.ceremony import Thresholds, hold_ceremony
from orchestrator.publisher.connection import next_connection, present_connection, read_ca, sign_connection
from orchestrator.publisher.signing import Repository, load_repository
from orchestrator.publisher.workspace import Workspace
from orchestrator.signer.keys import load_signer
from protocol.enrolment import BrokerAddress, ConnectionTarget
from protocol.errors import ErrorCode, TrustError
from protocol.trust.workflow import TrustStore
from tests.device_client.identities import TestCa

NOW = datetime.now(UTC).replace(microsecond=0)
CA = TestCa()
BROKERS = [BrokerAddress(host="broker.example", port=8883)]


def ceremony(place: Path, targets: int = 1) -> Workspace:
    """A fleet's first keys and metadata."""
    hold_ceremony(
        place / "publisher",
        place / "signer",
        place / "trust",
        fleet="north",
        products=["gateway"],
        thresholds=Thresholds(targets=targets),
        now=NOW,
    )
    return Workspace(place / "publisher")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """One person's keys."""
    return ceremony(tmp_path)


def repository(workspace: Workspace) -> Repository:
    """The newest metadata."""
    return load_repository(workspace.load().metadata, NOW)


def sign(workspace: Workspace, target: ConnectionTarget | None = None) -> ConnectionTarget:
    """Sign and keep."""
    newest = repository(workspace)
    made = target or next_connection(newest, BROKERS, CA.pem)
    workspace.store(sign_connection(newest, made, workspace.load().signers, NOW))
    return made


def as_device(workspace: Workspace, place: Path) -> ConnectionTarget | None:
    """What a device makes of the metadata, under a timestamp that names the newest snapshot."""
    files = dict(workspace.load().metadata)
    snapshot = max(int(name.split(".")[0]) for name in files if name.endswith(".snapshot.json"))
    metadata = Metadata(
        Timestamp(version=snapshot + 1, snapshot_meta=MetaFile(snapshot), expires=NOW.replace(year=2099))
    )
    metadata.sign(load_signer(place / "signer" / "timestamp.key"))
    files["timestamp.json"] = metadata.to_bytes()
    store = TrustStore(place / "device", (place / "trust" / "1.root.json").read_bytes())
    (place / "device").mkdir(exist_ok=True)
    return store.refresh(files, NOW, ("gateway",)).connection


def test_a_device_reads_what_was_signed(workspace: Workspace, tmp_path: Path) -> None:
    """Nothing before, then brokers and CA as they were given; the next one is a version higher."""
    assert as_device(workspace, tmp_path) is None
    first = sign(workspace)
    assert first.version == 1 and as_device(workspace, tmp_path) == first
    second = sign(workspace)
    assert second.version == 2 and present_connection(repository(workspace)) == second
    assert as_device(workspace, tmp_path) == second


def test_without_enough_keys_nothing_is_signed(tmp_path: Path) -> None:
    """The threshold of targets holds here too, and the working copy stays as it was."""
    workspace = ceremony(tmp_path, targets=2)
    (workspace.keys / "targets-2.key").unlink()
    before = sorted(path.name for path in workspace.metadata.iterdir())
    with pytest.raises(NotAllowedError, match="role targets needs 2 keys, found 1"):
        sign(workspace)
    assert sorted(path.name for path in workspace.metadata.iterdir()) == before


def test_a_connection_that_is_not_understood_is_refused_by_devices(workspace: Workspace, tmp_path: Path) -> None:
    """E_FORMAT, and releases are judged as before."""
    sign(workspace, ConnectionTarget.model_construct(fleet="north", version=1, ca=CA.pem, brokers=[]))
    with pytest.raises(TrustError) as refused:
        as_device(workspace, tmp_path)
    assert refused.value.code is ErrorCode.FORMAT


@pytest.mark.parametrize(
    ("content", "error", "says"),
    [
        pytest.param(None, NotFoundError, "no such CA", id="not there"),
        pytest.param(b"", UsageError, "CA certificates in PEM", id="empty"),
        pytest.param(b"\xff", UsageError, "CA certificates in PEM", id="bytes"),
        pytest.param(b"x" * 20_000, UsageError, "at most 16384 B", id="too long"),
        pytest.param(CA.pem.encode() + b"-----BEGIN PRIVATE KEY-----", UsageError, "alone", id="a key too"),
        pytest.param(CA.issue(CA._key.public_key()).encode(), UsageError, "found another kind", id="no CA"),
    ],
)
def test_a_file_that_is_no_ca(tmp_path: Path, content: bytes | None, error: type[OperationError], says: str) -> None:
    """A wrong file here would cut a fleet off; it is told before anything is signed."""
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(error, match=says):
        read_ca(file)


def test_on_the_command_line(workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Shown before, signed, shown after; half of the words or a broker without a port is a usage error."""
    (tmp_path / "ca.pem").write_text(CA.pem)
    keys = ["--keys", str(workspace.directory)]
    assert main(["trust", "connection", *keys]) == 0
    assert "no connection was signed" in capsys.readouterr().out
    assert main(["trust", "connection", "--broker", "b.example:1", *keys]) == 2
    for bad in ("b.example", "b.example:0", "b.example:x", ":1"):
        assert main(["trust", "connection", "--broker", bad, "--ca", str(tmp_path / "ca.pem"), *keys]) == 2
    assert main(["trust", "connection", "--broker", "[::1]:1", "--ca", str(tmp_path / "ca.pem"), *keys]) == 0
    capsys.readouterr()
    assert main(["trust", "connection", *keys]) == 0
    shown = ConnectionTarget.model_validate_json(capsys.readouterr().out)
    assert [(one.host, one.port) for one in shown.brokers] == [("::1", 1)]


def test_mirrors_on_the_command_line(workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They are signed with the brokers and reach the device; a slip is a usage error and signs nothing."""
    (tmp_path / "ca.pem").write_text(CA.pem)
    words = ["trust", "connection", "--keys", str(workspace.directory)]
    both = ["--broker", "b.example:1", "--ca", str(tmp_path / "ca.pem")]
    for bad in ("http://m.example", "m.example", "https://m.example=other", ""):
        assert main([*words, *both, "--mirror", bad]) == 2, bad
    assert main([*words, "--mirror", "https://m.example"]) == 2
    assert present_connection(repository(workspace)) is None
    assert main([*words, *both, "--mirror", "https://m.example/ota", "--mirror", "https://cdn.example=system"]) == 0
    capsys.readouterr()
    seen = as_device(workspace, tmp_path)
    assert seen is not None
    found = [(one.url, one.ca) for one in seen.mirrors]
    assert found == [("https://m.example/ota", "fleet"), ("https://cdn.example", "system")]
