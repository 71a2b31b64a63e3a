"""A proposal on its way: made, signed on several machines, merged, published; and what is wrong with one."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner

from orchestrator.errors import ConflictError, NotAllowedError, NotFoundError, OperationError, UsageError, WaitingError
from orchestrator.publisher import proposal_file, steps
from orchestrator.publisher.changes import Change
from orchestrator.publisher.holders import Holder
from orchestrator.publisher.proposal_file import read_proposal, to_bytes
from orchestrator.publisher.proposals import Proposal, merge, sign_proposal
from orchestrator.publisher.trust_diff import describe
from protocol.trust.workflow import TrustStore
from tests.orchestrator.publisher.workshop import NOW, Publisher, make_publisher

ADA, BOB = CryptoSigner.generate_ed25519(), CryptoSigner.generate_ed25519()
NAMES = {ADA.public_key.keyid: Holder(holder="Ada"), BOB.public_key.keyid: Holder(holder="Bob")}
TWO_ROOTS = Change(add=(("root", ADA.public_key), ("root", BOB.public_key)), thresholds={"root": 2})


def make(publisher: Publisher, change: Change = TWO_ROOTS) -> Proposal:
    """A proposal of two more root keys."""
    return steps.propose(publisher.workspace, change, NAMES, "three holders", NOW)


def key(publisher: Publisher, name: str) -> CryptoSigner:
    """A key of the publisher's folder."""
    found = publisher.workspace.load_plain_signers()[name]
    assert isinstance(found, CryptoSigner)
    return found


def test_a_root_needs_the_old_and_the_new_threshold(publisher: Publisher) -> None:
    """TUF 5.3.4: the former key vouches for the new ones; who is missing is said by name."""
    proposal = sign_proposal(make(publisher), ADA, "ada")
    with pytest.raises(WaitingError, match=r"root, old keys: 0 of 1 signatures, 1 more of root-1 .*new keys: 1 of 2"):
        steps.publish(publisher.workspace, [proposal])
    proposal = sign_proposal(proposal, BOB, "bob")
    with pytest.raises(WaitingError, match="root, old keys: 0 of 1"):
        steps.publish(publisher.workspace, [proposal])
    steps.publish(publisher.workspace, [sign_proposal(proposal, key(publisher, "root-1"), "root-1")])
    assert "2.root.json" in publisher.workspace.load_metadata()


def test_copies_that_were_signed_apart_are_merged_and_devices_follow(publisher: Publisher, tmp_path: Path) -> None:
    """Through files, as they are carried by hand."""
    raw = to_bytes(make(publisher))
    first = to_bytes(sign_proposal(read_proposal(raw, "p"), ADA, "ada"))
    second = to_bytes(sign_proposal(read_proposal(raw, "p"), key(publisher, "root-1"), "root-1"))
    steps.publish(publisher.workspace, [read_proposal(one, "p") for one in (first, second)])
    files = publisher.served()
    trusted = TrustStore(tmp_path / "device", files["1.root.json"]).refresh(files, NOW)
    assert trusted.roles["root"].version == 2
    assert publisher.workspace.load_holders().name(ADA.public_key.keyid) == "Ada"


def test_the_same_key_twice_counts_once(publisher: Publisher) -> None:
    """Signing again is refused; merging a copy with itself adds nothing."""
    proposal = sign_proposal(make(publisher), ADA, "ada")
    with pytest.raises(ConflictError, match=r"Ada \(.*has signed already; one key counts once"):
        sign_proposal(proposal, ADA, "ada")
    assert merge([proposal, proposal]).missing() == proposal.missing()


def test_a_key_without_a_say_signs_nothing(publisher: Publisher) -> None:
    """Says whose keys are wanted."""
    with pytest.raises(NotAllowedError, match=r"signs nothing in this proposal; it wants root-1 \(.*Ada"):
        sign_proposal(make(publisher), CryptoSigner.generate_ed25519(), "eve")


def test_what_somebody_published_meanwhile_is_not_overwritten(publisher: Publisher) -> None:
    """A proposal is bound to the state that it was made from."""
    late = make(publisher, Change(renew={"targets": None}))
    other = steps.sign_at_hand(make(publisher, Change(renew={"snapshot": None})), publisher.workspace.load_signers())
    steps.publish(publisher.workspace, [other])
    late = steps.sign_at_hand(late, publisher.workspace.load_signers())
    with pytest.raises(ConflictError, match=r"based on another state \(1.snapshot.json.*published meanwhile"):
        steps.publish(publisher.workspace, [late])
    with pytest.raises(ConflictError, match="published already"):
        steps.publish(publisher.workspace, [other])


def test_a_publication_that_was_cut_off_is_done_by_publishing_again(publisher: Publisher) -> None:
    """Some of its files are there and nothing is lost."""
    proposal = steps.sign_at_hand(make(publisher, Change(renew={"targets": None})), publisher.workspace.load_signers())
    publisher.workspace.store({"2.targets.json": proposal.signed_files()["2.targets.json"]})
    steps.publish(publisher.workspace, [proposal])
    assert {"2.targets.json", "2.snapshot.json"} <= publisher.workspace.load_metadata().keys()


def test_another_fleets_proposal_is_refused(publisher: Publisher, tmp_path: Path) -> None:
    """Even one of the same shape."""
    foreign = make_publisher(tmp_path / "foreign")
    signed = steps.sign_at_hand(make(foreign, Change(renew={"snapshot": None})), foreign.workspace.load_signers())
    with pytest.raises(ConflictError, match="based on another state"):
        steps.publish(publisher.workspace, [signed])
    with pytest.raises(ConflictError, match="not copies of one"):
        merge([make(publisher, Change(renew={"root": None})), signed])


Harm = Callable[[dict[str, Any]], None]


def _edit(file: dict[str, Any], name: str, change: Callable[[dict[str, Any]], None]) -> None:
    metadata = json.loads(file["files"][name])
    change(metadata)
    file["files"][name] = json.dumps(metadata)


def _other_name(file: dict[str, Any]) -> None:
    file["files"]["3.root.json"] = file["files"].pop("2.root.json")


BAD: dict[str, tuple[type[OperationError], str, Harm]] = {
    "changed after it was signed": (
        NotAllowedError,
        "the signature of key .* does not hold",
        lambda f: _edit(f, "2.root.json", lambda m: m["signed"].update(expires="2036-01-01T00:00:00Z")),
    ),
    "signed by a stranger": (
        NotAllowedError,
        "which has no say there",
        lambda f: _edit(f, "2.root.json", lambda m: m["signatures"].append({"keyid": "ab" * 32, "sig": "00"})),
    ),
    "another version": (OperationError, "expected version 2 of root", _other_name),
    "no metadata": (OperationError, "not TUF metadata", lambda f: f["files"].update({"2.root.json": "[]"})),
    "another role": (
        OperationError,
        "of another kind",
        lambda f: f["files"].update({"2.boot.json": f["files"]["2.root.json"]}),
    ),
    "another fleet": (OperationError, "says fleet north", lambda f: f.update(fleet="north")),
    "a base that is not signed": (
        OperationError,
        "root metadata is not signed by its keys",
        lambda f: f["before"].update({"1.root.json": f["before"]["1.root.json"].replace("2027-", "2028-")}),
    ),
    "not a proposal": (UsageError, "not a proposal of", lambda f: f.update(type="letter")),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_is_not_what_was_proposed_is_refused(publisher: Publisher, name: str) -> None:
    """Each is one sentence; nothing in the file is believed before."""
    error, says, harm = BAD[name]
    file = json.loads(to_bytes(sign_proposal(make(publisher), ADA, "ada")))
    harm(file)
    with pytest.raises(error, match=says) as refused:
        read_proposal(json.dumps(file).encode(), "p")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("raw", [b"", b"\xff", b"[" * 100_000, b"{}", b"x" * (2**21 + 1)])
def test_a_file_that_is_no_proposal_at_all(raw: bytes) -> None:
    """Neither size nor depth breaks the reader."""
    with pytest.raises(UsageError, match=r"p: (not|expected) a proposal"):
        read_proposal(raw, "p")


def test_files_are_whole_or_absent(publisher: Publisher, tmp_path: Path) -> None:
    """A new one overwrites nothing; a missing one says how to make one."""
    path = tmp_path / "p"
    proposal = make(publisher)
    proposal_file.save(path, proposal, new=True)
    assert proposal_file.load(path).id == proposal.id
    with pytest.raises(ConflictError, match="is there already"):
        proposal_file.save(path, proposal, new=True)
    with pytest.raises(NotFoundError, match="flagship trust propose"):
        proposal_file.load(tmp_path / "absent")


def test_the_description_names_what_changes_and_all_keys(publisher: Publisher) -> None:
    """Added and removed keys with holder and digits, thresholds, versions, expiry, who has signed."""
    change = replace(TWO_ROOTS, renew={"targets": None})
    text = "\n".join(describe(sign_proposal(make(publisher, change), ADA, "ada")))
    ada = ADA.public_key.keyid[:12]
    for line in (
        "  reason: three holders",
        "  root: version 1 -> 2",
        f"    + key {ada}  Ada (ed25519)",
        "    threshold 1 of 1 -> 2 of 3",
        "  targets: version 1 -> 2",
        "    expires 2027-05-23 -> 2027-05-23",
        f"      {ada}  Ada",
    ):
        assert line in text.splitlines(), line
    assert "root, new keys: 1 of 2 signatures, 1 more of root-1" in text


def test_what_the_tool_does_not_know_is_not_hidden(publisher: Publisher) -> None:
    """A field that a proposer slipped in is pointed at before anybody signs."""
    proposal = make(publisher, Change(renew={"targets": None}))
    assert "refuse unless you know why" not in "\n".join(describe(proposal))
    proposal.files["2.targets.json"].signed.unrecognized_fields["flagship"] = {"counter_resets": {"app": {}}}
    assert "    ! changes something that this tool does not know: refuse unless you know why" in describe(proposal)


def test_renewal_signs_with_the_keys_at_hand_and_leaves_the_rest_to_their_holders(publisher: Publisher) -> None:
    """One person renews alone; with a key elsewhere the proposal says whose."""
    assert steps.renew(publisher.workspace, NOW - NOW, NOW) is None
    late = publisher.now.replace(year=2027, month=4)
    renewed = steps.renew(publisher.workspace, late - NOW, NOW)
    assert renewed is not None and not renewed.missing()
    assert {name.split(".")[1] for name in renewed.files} == {"snapshot", "releases-gateway"}
    (publisher.workspace.keys / "releases-gateway-1.key").unlink()
    waiting = steps.renew(publisher.workspace, late - NOW, NOW)
    assert waiting is not None
    assert waiting.missing()[0].startswith("releases-gateway: 0 of 1 signatures, 1 more of - (")
