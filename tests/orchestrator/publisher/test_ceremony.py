"""The first keys and metadata: the roles of the design, whole for a device, private where it counts."""

import json
import stat
from datetime import timedelta
from pathlib import Path

import pytest
from securesystemslib.signer import Signature
from tuf.api.metadata import Metadata, Root, Targets

from orchestrator.errors import ConflictError, UsageError
from orchestrator.publisher.ceremony import Thresholds, hold_ceremony
from orchestrator.publisher.workspace import Workspace
from orchestrator.signer.high_water import HighWater
from orchestrator.signer.keys import load_signer
from protocol.errors import EnvelopeError, ErrorCode, TrustError
from protocol.trust.workflow import TrustStore
from tests.orchestrator.publisher.workshop import NOW

ONE_PERSON = Thresholds()


class Held:
    """A ceremony for two products."""

    def __init__(self, place: Path, thresholds: Thresholds = ONE_PERSON) -> None:
        self.publisher, self.signer, self.trust = place / "publisher", place / "signer", place / "trust"
        hold_ceremony(
            self.publisher,
            self.signer,
            self.trust,
            fleet="harbour",
            products=["gateway", "sensor"],
            thresholds=thresholds,
            now=NOW,
        )

    def files(self) -> dict[str, bytes]:
        """What is published."""
        return {path.name: path.read_bytes() for path in self.trust.iterdir()}


@pytest.fixture
def held(tmp_path: Path) -> Held:
    """For one person."""
    return Held(tmp_path)


def test_a_device_accepts_the_first_metadata(held: Held, tmp_path: Path) -> None:
    """From the first root on, with both products' lists, which are empty."""
    files = held.files()
    trusted = TrustStore(tmp_path / "device", files["1.root.json"]).refresh(files, NOW, ("gateway", "sensor"))
    assert {name: role.version for name, role in trusted.roles.items()} == dict.fromkeys(
        ("root", "timestamp", "snapshot", "targets", "releases-gateway", "releases-sensor"), 1
    )
    assert trusted.release("gateway/1.0.0/manifest") is None
    assert trusted.timestamp_expires == NOW + timedelta(days=7)
    assert trusted.snapshot_expires == NOW + timedelta(days=90)


@pytest.mark.parametrize(
    ("role", "days"),
    [("root", 365), ("targets", 180), ("snapshot", 90), ("releases-gateway", 90), ("releases-sensor", 90)],
)
def test_expiry_of_each_role(held: Held, role: str, days: int) -> None:
    """As the design's table says."""
    signed = Metadata.from_bytes(held.files()[f"1.{role}.json"]).signed
    assert signed.expires == NOW + timedelta(days=days)


def test_metadata_runs_out(held: Held, tmp_path: Path) -> None:
    """A device that hears nothing new for a week refuses to go on."""
    files = held.files()
    with pytest.raises(TrustError) as refused:
        TrustStore(tmp_path / "device", files["1.root.json"]).refresh(files, NOW + timedelta(days=8))
    assert refused.value.code is ErrorCode.FREEZE


def test_the_director_signs_directives_and_nothing_else(held: Held, tmp_path: Path) -> None:
    """Devices find its key in the offline targets role; it is a carrier without a path; root knows none of it."""
    files = held.files()
    targets = Metadata[Targets].from_bytes(files["1.targets.json"]).signed
    assert targets.delegations is not None and targets.delegations.roles is not None
    role = targets.delegations.roles["director-harbour"]
    director = load_signer(held.signer / "director.key")
    assert (role.keyids, role.paths, role.threshold) == ([director.public_key.keyid], [], 1)
    assert director.public_key.keyid not in Metadata[Root].from_bytes(files["1.root.json"]).signed.keys
    verify = TrustStore(tmp_path / "device", files["1.root.json"]).refresh(files, NOW).verify_director("harbour")

    def signed(name: str) -> dict[str, Signature]:
        signature = load_signer(held.signer / f"{name}.key").sign(b"order")
        return {signature.keyid: signature}

    verify(b"order", signed("director"))
    with pytest.raises(EnvelopeError):
        verify(b"order", signed("timestamp"))


def test_each_product_has_a_terminating_role_of_its_own(held: Held) -> None:
    """Nobody else's keys can list a product's release."""
    targets = Metadata[Targets].from_bytes(held.files()["1.targets.json"]).signed
    assert targets.delegations is not None and targets.delegations.roles is not None
    one, two = (targets.delegations.roles[f"releases-{product}"] for product in ("gateway", "sensor"))
    assert (one.terminating, one.paths, two.paths) == (True, ["gateway/*/*"], ["sensor/*/*"])
    assert not set(one.keyids) & set(two.keyids)


def test_thresholds(tmp_path: Path) -> None:
    """Two roots, three for targets, two for releases: that many keys, all of which must sign."""
    held = Held(tmp_path, Thresholds(2, 3, 2))
    files = held.files()
    root = Metadata[Root].from_bytes(files["1.root.json"])
    found = {name: (len(role.keyids), role.threshold) for name, role in root.signed.roles.items()}
    assert found == {"root": (2, 2), "targets": (3, 3), "snapshot": (1, 1), "timestamp": (1, 1)}
    assert len(root.signatures) == 2
    names = sorted(path.name for path in (held.publisher / "keys").iterdir())
    assert [name for name in names if "gateway" in name] == ["releases-gateway-1.key", "releases-gateway-2.key"]
    unsigned = json.loads(files["1.targets.json"])
    unsigned["signatures"].pop()
    files["1.targets.json"] = json.dumps(unsigned).encode()
    with pytest.raises(TrustError) as refused:
        TrustStore(tmp_path / "device", files["1.root.json"]).refresh(files, NOW)
    assert refused.value.code is ErrorCode.SIGNATURE


def test_who_holds_which_key(held: Held) -> None:
    """Offline keys are with the publisher only, online keys with the signer only, none is published; all are 0600."""
    offline = {path.name for path in (held.publisher / "keys").iterdir()}
    assert offline == {
        *("root-1.key", "targets-1.key", "snapshot-1.key"),
        *("releases-gateway-1.key", "releases-sensor-1.key"),
    }
    assert {path.name for path in held.signer.iterdir()} == {
        *("timestamp.key", "director.key", "package.key", "high-water.json")
    }
    private = [*held.publisher.glob("keys/*"), held.publisher / "content.secret", *held.signer.iterdir()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in private} == {0o600}
    for folder in (held.publisher, held.publisher / "keys", held.signer):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    everything = b"".join(held.files().values()) + (held.publisher / "package.pub").read_bytes()
    assert b"PRIVATE KEY" not in everything


def test_both_sides_can_start(held: Held) -> None:
    """The publisher's folder loads, and the signer's marks stand below everything that was signed."""
    keys = Workspace(held.publisher).load()
    assert len(keys.signers) == 5
    assert keys.metadata == {name: data for name, data in held.files().items() if name != "timestamp.json"}
    marks = HighWater(held.signer / "high-water.json")
    assert (marks.epoch, marks.timestamp, marks.next_order()) == (1, 1, (1, 1))


def test_keys_are_never_made_again(held: Held, tmp_path: Path) -> None:
    """A second ceremony in the same place touches nothing."""
    before = (held.publisher / "keys" / "root-1.key").read_bytes(), held.files()
    with pytest.raises(ConflictError, match="never overwritten"):
        Held(tmp_path)
    assert ((held.publisher / "keys" / "root-1.key").read_bytes(), held.files()) == before


@pytest.mark.parametrize(
    ("fleet", "products", "thresholds", "words"),
    [
        pytest.param("a/b", ["gateway"], Thresholds(), "fleet 'a/b'", id="slash in the fleet"),
        pytest.param("harbour", ["+"], Thresholds(), "product '\\+'", id="wildcard as product"),
        pytest.param("harbour", [], Thresholds(), "at least one", id="no product"),
        pytest.param("harbour", ["a", "a"], Thresholds(), "named once", id="a product twice"),
        pytest.param("harbour", ["a"], Thresholds(root=0), "--root-threshold 0: expected 1 to 16", id="no root"),
        pytest.param("harbour", ["a"], Thresholds(releases=17), "--releases-threshold 17", id="too many"),
    ],
)
def test_what_makes_no_sense_makes_nothing(
    tmp_path: Path, fleet: str, products: list[str], thresholds: Thresholds, words: str
) -> None:
    """Judged before the first key is made."""
    with pytest.raises(UsageError, match=words):
        hold_ceremony(
            tmp_path / "p",
            tmp_path / "s",
            tmp_path / "t",
            fleet=fleet,
            products=products,
            thresholds=thresholds,
            now=NOW,
        )
    assert list(tmp_path.iterdir()) == []
