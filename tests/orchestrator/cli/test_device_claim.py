"""Claims on the command line: a list is read whole or not at all, and a folder is there or is not."""

import json
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from device_client.claim import load_claim
from orchestrator.cli.device_claim import _read_serials, claim_name
from orchestrator.errors import NotFoundError, OperationError, UsageError
from tests.orchestrator.cli.conftest import Run, ask
from tests.orchestrator.cli.test_main import assert_sentence

GIVEN = ("gateway", "rev-a")


def listed(place: Path, text: str) -> list[dict[str, object]]:
    """What a list says."""
    file = place / "serials.csv"
    file.write_text(text)
    return _read_serials(file, *GIVEN)


def test_a_list(tmp_path: Path) -> None:
    """What a line does not say comes from the options; the id is the serial where none is given; labels are columns."""
    found = listed(tmp_path, "serial,device,hardware,label.site\nSN-1,,,\nSN:2,cam-2,rev-b,Ulm\n")
    assert found == [
        {"serial": "SN-1", "device": "SN-1", "product": "gateway", "hardware": "rev-a", "labels": {}},
        {"serial": "SN:2", "device": "cam-2", "product": "gateway", "hardware": "rev-b", "labels": {"site": "Ulm"}},
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("", "expected 1 to", id="empty"),
        pytest.param("serial\n", "expected 1 to", id="no serial"),
        pytest.param("serial,device\nSN-1,a/b\n", "line 2: device id 'a/b'", id="an id with a slash"),
        pytest.param("serial,device\nSN-1,a\nSN/2,b\n", "line 3: serial 'SN/2'", id="a serial with a slash"),
        pytest.param("serial\nSN:1\n", "line 2: device id 'SN:1'", id="a serial that cannot be an id"),
        pytest.param("serial,colour\nSN-1,red\n", "found ['colour']", id="another column"),
        pytest.param("serial\nSN-1,more\n", "expected serial", id="more values than columns"),
        pytest.param("device\nSN-1\n", "line 2: serial ''", id="no serials"),
        pytest.param('serial\n"SN-1\n', "not CSV", id="an open quote"),
        pytest.param("serial,label.a b\nSN-1,x\n", "label", id="a label that is none"),
    ],
)
def test_a_list_with_a_mistake(tmp_path: Path, text: str, says: str) -> None:
    """The line is named, and nothing is made of the others."""
    with pytest.raises(UsageError) as refused:
        listed(tmp_path, text)
    assert says in str(refused.value)


def test_a_list_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    """One sentence each."""
    with pytest.raises(NotFoundError, match="no such list"):
        _read_serials(tmp_path / "none.csv", *GIVEN)
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="not CSV"):
        _read_serials(tmp_path / "bytes.csv", *GIVEN)
    with pytest.raises(OperationError):
        _read_serials(tmp_path, *GIVEN)


@pytest.mark.parametrize("text", ["a/b", "", "claim.", "a.b", "+", "x" * 60])
def test_names_that_no_claim_has(text: str) -> None:
    """With or without the prefix it is the same claim; what may not stand in a topic is refused."""
    assert claim_name("line-1") == claim_name("claim.line-1") == "claim.line-1"
    with pytest.raises(UsageError, match="claim"):
        claim_name(text)


def test_a_claim_from_list_to_revocation(run: Run, tmp_path: Path) -> None:
    """The folder holds a key that fits its certificate and is for this user alone; serve never saw the key."""
    (tmp_path / "s.csv").write_text("serial\nSN-1\nSN-2\n")
    words = ("--serials", tmp_path / "s.csv", "--product", "gateway", "--hardware", "rev-a")
    code, out, err = run("device", "claim", "create", "cli-1", *words, "-o", tmp_path / "claim")
    assert (code, err) == (0, "") and "2 serials listed" in out
    claim = load_claim(tmp_path / "claim")
    certificate = x509.load_pem_x509_certificate((claim.directory / "claim.pem").read_bytes())
    key = load_pem_private_key((claim.directory / "claim.key").read_bytes(), None)
    assert certificate.public_key() == key.public_key()
    assert (claim.directory / "claim.key").stat().st_mode & 0o777 == 0o600
    found = {item["name"]: item for item in ask(run, "device", "claim", "list")}["claim.cli-1"]
    assert (found["state"], found["approval"], found["listed"], found["admitted"]) == ("open", "auto", 2, 0)
    code, _, err = run("device", "claim", "create", "cli-1", *words, "-o", tmp_path / "again")
    assert code == 5 and not (tmp_path / "again").exists()
    assert_sentence(err)
    assert run("device", "claim", "revoke", "cli-1")[0] == 0
    found = {item["name"]: item for item in ask(run, "device", "claim", "list")}["claim.cli-1"]
    assert found["state"] == "revoked"
    assert ask(run, "device", "pending") == []


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        pytest.param(("x", "--any"), 2, "--product and --hardware", id="any of what"),
        pytest.param(("x",), 2, "--serials FILE or --any", id="nobody"),
        pytest.param(("a/b", "--any", "--product", "p", "--hardware", "h"), 2, "claim", id="name"),
        pytest.param(
            ("x", "--any", "--product", "p", "--hardware", "h", "--approval", "maybe"), 2, "auto or manual", id="maybe"
        ),
    ],
)
def test_words_that_make_no_claim(run: Run, tmp_path: Path, words: tuple[str, ...], code: int, says: str) -> None:
    """They are told, and no folder is left."""
    found, _, err = run("device", "claim", "create", *words, "-o", tmp_path / "claim")
    assert_sentence(err)
    assert found == code and says in err
    assert list(tmp_path.iterdir()) == []


def test_requests_are_named_by_their_ids(run: Run) -> None:
    """What is no id is a usage error; one that is not there is not found."""
    for verb in ("approve", "reject"):
        assert run("device", verb, "cam-1")[0] == 2
        code, _, err = run("device", verb, "e-000000000000")
        assert code == 3 and "device pending" in err
    assert json.dumps(ask(run, "device", "pending")) == "[]"
