"""A fleet's home is made whole, private where it counts, or not at all."""

import asyncio
import fcntl
import multiprocessing
import os
import signal
import stat
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509

from orchestrator.cli import init
from orchestrator.cli.init import HomePlan, initialise
from orchestrator.cli.main import main
from orchestrator.config import Home, Settings
from orchestrator.errors import ConflictError, OperationError, UsageError
from orchestrator.fleet.authority import load_authority
from orchestrator.publisher.ceremony import Thresholds
from orchestrator.signer.signer import Signer
from orchestrator.storage import releases
from orchestrator.storage.database import Database
from protocol.topics import DELIVERY, INGEST
from protocol.trust.workflow import TrustStore

PLAN = HomePlan("harbour", ("gateway", "sensor"), Thresholds(), api_port=18420, device_port=18883, service_port=18884)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home for two products."""
    return initialise(tmp_path / "home", PLAN)


async def test_every_room_can_start_from_it(tmp_path: Path) -> None:
    """Settings, signer, database, CAs and metadata load."""
    home = await _initialise(tmp_path / "home")
    settings = home.load()
    assert (settings.fleet, settings.product, settings.api.port) == ("harbour", "gateway", 18420)
    assert (settings.broker.device_port, settings.broker.service_port) == (18883, 18884)
    assert settings == Settings(
        fleet="harbour", product="gateway", api=settings.api, broker=settings.broker
    )  # all else is as by default
    Signer.open(home, settings)
    db = await Database.open(home.database)
    async with db.read() as conn:
        assert await releases.page(conn) == []
    await db.close()
    for name in ("devices-ca", "services-ca"):
        load_authority(home.ca, name)
    files = {path.name: path.read_bytes() for path in home.trust.iterdir()}
    now = datetime.now(UTC)
    TrustStore(tmp_path / "device", files["1.root.json"]).refresh(files, now, ("gateway", "sensor"))
    assert home.chunks.is_dir() and home.incoming.is_dir() and home.broker.is_dir()


async def _initialise(place: Path) -> Home:
    return await asyncio.to_thread(initialise, place, PLAN)


def test_secrets_are_private(home: Home) -> None:
    """Keys, the token and the database are 0600; the home itself is for its owner alone."""
    secrets = [path for path in home.path.rglob("*") if path.suffix == ".key" or path.name == "content.secret"]
    assert len(secrets) > 10
    secrets += [home.admin_token, home.database, home.signer / "high-water.json"]
    assert {str(path): oct(stat.S_IMODE(path.stat().st_mode)) for path in secrets} == {
        str(path): "0o600" for path in secrets
    }
    for folder in (home.path, home.signer, home.publisher, home.ca, home.tls):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    token = home.admin_token.read_text().strip()
    assert len(token) >= 40
    open_files = [p for p in home.path.rglob("*") if p.is_file() and stat.S_IMODE(p.stat().st_mode) & 0o077]
    for path in open_files:
        text = path.read_bytes()
        assert b"PRIVATE KEY" not in text and token.encode() not in text


def test_certificates_come_from_the_right_authority(home: Home) -> None:
    """The broker's from the devices' CA, since devices know no other; services and viewers from the services' CA."""
    for name, ca in (("broker", "devices-ca"), (DELIVERY, "services-ca"), (INGEST, "services-ca"), ("viewer", "services-ca")):  # fmt: skip  # noqa: E501
        certificate = x509.load_pem_x509_certificate(home.certificate(name)[0].read_bytes())
        certificate.verify_directly_issued_by(load_authority(home.ca, ca).certificate)


def test_the_brokers_certificate_holds_where_it_is_reached(tmp_path: Path) -> None:
    """At the names that were given, and at loopback, where the orchestrator connects."""
    home = initialise(tmp_path / "home", replace(PLAN, host="broker.example", hosts=("192.0.2.7", "127.0.0.1")))
    certificate = x509.load_pem_x509_certificate(home.certificate("broker")[0].read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["broker.example", "localhost"]
    assert [str(a) for a in names.get_values_for_type(x509.IPAddress)] == ["192.0.2.7", "127.0.0.1"]
    assert home.load().broker.host == "broker.example"


def test_the_environment_is_not_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys for one fleet beside settings of another would be a home that never works."""
    monkeypatch.setenv("FLAGSHIP_FLEET", "elsewhere")
    monkeypatch.setenv("FLAGSHIP_API__PORT", "1")
    home = initialise(tmp_path / "home", PLAN)
    monkeypatch.undo()
    assert (home.load().fleet, home.load().api.port) == ("harbour", 18420)


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    """Relative paths, missing parents, and a folder that is there already."""
    place = tmp_path / "a" / "b"
    place.mkdir(parents=True)
    assert initialise(place, PLAN).load().fleet == "harbour"
    assert initialise(tmp_path / "x" / "y" / "z", PLAN).load().fleet == "harbour"
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["b"]


def test_a_home_is_never_made_twice(home: Home) -> None:
    """All of it stays: the keys in it may be the only copy."""
    before = _contents(home.path)
    with pytest.raises(ConflictError, match="expected a new or empty folder, found a fleet's home; name another"):
        initialise(home.path, PLAN)
    assert _contents(home.path) == before


def test_what_is_in_the_way_stays(tmp_path: Path) -> None:
    """A folder with files, a file, a link, and a strange folder where the home is built."""
    full, file, link = tmp_path / "full", tmp_path / "file", tmp_path / "link"
    full.mkdir()
    (full / "precious").write_text("x")
    file.write_text("x")
    link.symlink_to(tmp_path / "elsewhere")
    for place in (full, file, link):
        with pytest.raises(ConflictError, match="expected a new or empty folder, found"):
            initialise(place, PLAN)
    strange = tmp_path / "home.partial"
    strange.mkdir()
    (strange / "precious").write_text("x")
    with pytest.raises(ConflictError, match=r"home\.partial: is in the way and holds more than a home"):
        initialise(tmp_path / "home", PLAN)
    assert (full / "precious").read_text() == file.read_text() == (strange / "precious").read_text() == "x"
    assert not (tmp_path / "home").exists() and link.is_symlink()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param({"fleet": "a/b"}, "fleet 'a/b': expected 1 to 64", id="slash in the fleet"),
        pytest.param({"products": ("#",)}, "product '#'", id="wildcard as product"),
        pytest.param({"products": ("ok", "+")}, "product '\\+'", id="wildcard as second product"),
        pytest.param({"products": ()}, "at least one", id="no product"),
        pytest.param({"products": ("a", "a")}, "named once", id="a product twice"),
        pytest.param({"api_port": 0}, "port: .*greater than 0, found 0", id="port 0"),
        pytest.param({"device_port": 70000}, "device_port: .*less than 65536, found 70000", id="port too high"),
        pytest.param({"device_port": 18420}, "expected different", id="one port twice"),
        pytest.param({"host": "a b"}, "host 'a b': expected a host name", id="no host"),
        pytest.param({"hosts": ('a"',)}, "expected a host name", id="a quote in a host"),
        pytest.param({"thresholds": Thresholds(0)}, "--root-threshold 0: expected 1 to 16", id="no root key"),
    ],
)
def test_what_makes_no_sense_leaves_nothing(tmp_path: Path, change: dict[str, object], words: str) -> None:
    """One sentence, and not even an empty folder."""
    with pytest.raises(UsageError, match=words):
        initialise(tmp_path / "home", replace(PLAN, **change))  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_failure_on_the_way_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as a full disk, after the keys were made."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "somewhere")

    monkeypatch.setattr(init, "issue_client", full)
    with pytest.raises(OperationError, match="somewhere: cannot be written: No space left"):
        initialise(tmp_path / "home", PLAN)
    assert list(tmp_path.iterdir()) == []


def _killed(place: Path) -> None:
    patch = pytest.MonkeyPatch()
    patch.setattr(init, "issue_client", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    initialise(place, PLAN)


def test_a_kill_leaves_no_home_and_no_obstacle(tmp_path: Path) -> None:
    """What was left is cleared by the next init."""
    place = tmp_path / "home"
    process = multiprocessing.get_context("spawn").Process(target=_killed, args=(place,))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir()] == ["home.partial"]
    assert initialise(place, PLAN).load().fleet == "harbour"
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_two_at_once(tmp_path: Path) -> None:
    """The second is told to wait and disturbs nothing."""
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(ConflictError, match="another 'flagship init' works in it"):
            initialise(tmp_path / "home", PLAN)
    finally:
        os.close(descriptor)
    assert list(tmp_path.iterdir()) == []


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Says where the release keys are and what comes next; each mistake is one sentence with its exit code."""
    place = tmp_path / "home"
    words = ["init", str(place), "--fleet", "harbour", "--product", "gateway", "--product", "sensor"]
    words += ["--root-threshold", "2", "--device-port", "18883", "--also-host", "broker.example"]
    assert main(words) == 0
    said = capsys.readouterr()
    assert "fleet harbour, products gateway, sensor" in said.out
    assert f"{place}/publisher; move that folder" in said.out
    assert f"flagship serve --home {place}" in said.out
    assert len(list((place / "publisher" / "keys").glob("root-*.key"))) == 2
    assert main(words) == 5
    assert main(["init", str(tmp_path / "b"), "--fleet", "a/b"]) == 2
    assert main(["init", str(tmp_path / "b"), "--api-port", "x"]) == 2
    said = capsys.readouterr()
    assert len(said.err.splitlines()) == 3 and "Traceback" not in said.err
    assert not (tmp_path / "b").exists()


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
