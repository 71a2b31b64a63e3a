"""What can be run, and whether the component's team signed it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib.signer import CryptoSigner

from protocol.envelopes import encode, sign, verify_with
from protocol.errors import ContentError, ErrorCode
from protocol.executables import EXECUTABLES_TYPE, ExecutableList, check_executables, is_executable, open_list
from protocol.manifest import Artifact, ReleaseInfo
from tests.protocol.trust.repository import release_info

TEAM, STRANGER = CryptoSigner.generate_ed25519(), CryptoSigner.generate_ed25519()
ONE, OTHER = "1a" * 32, "2b" * 32
LISTED = ExecutableList(product="gateway", component="app", version="1.1.0", entries=[("bin/app", ONE)])
INFO: ReleaseInfo = release_info()


@pytest.mark.parametrize(
    ("path", "mode", "head", "runs"),
    [
        ("bin/app", 0o755, b"", True),
        ("bin/app", 0o645, b"data", True),
        ("bin/app", 0o644, b"\x7fELF", True),
        ("etc/start", 0o644, b"#!/b", True),
        ("lib/libx.so", 0o644, b"", True),
        ("lib/libx.so.1.2", 0o644, b"", True),
        ("lib/a.py", 0o644, b"", True),
        ("lib/__pycache__/a.pyc", 0o644, b"", True),
        ("drivers/net.ko", 0o644, b"", True),
        ("etc/app.conf", 0o644, b"[app", False),
        ("doc/why.so.much.txt", 0o644, b"text", False),
        ("empty", 0o600, b"", False),
    ],
)
def test_what_can_be_run(path: str, mode: int, head: bytes, runs: bool) -> None:
    """Any execute bit, the beginning of a program or a script, or the name of a library or module."""
    assert is_executable(path, mode, head) is runs


@given(st.dictionaries(st.sampled_from("abcd"), st.sampled_from([ONE, OTHER])))
def test_only_what_is_listed_as_it_is_passes(found: dict[str, str]) -> None:
    """Every program of a tree is in the list with the same hash, or the tree is refused by name."""
    listed = LISTED.model_copy(update={"entries": [("a", ONE), ("b", OTHER)]})
    known = dict(listed.entries)
    try:
        check_executables(found.items(), listed)
    except ContentError as error:
        bad = next(path for path in found if known.get(path) != found[path])
        unlisted = bad not in known
        assert error.code is (ErrorCode.EXEC_UNLISTED if unlisted else ErrorCode.EXEC_SIGNATURE)
        assert repr(bad) in error.detail
    else:
        assert found.items() <= known.items()


def artifact(executables: str) -> Artifact:
    """An artifact that carries a list."""
    return Artifact(component="app", kind="directory", length=0, sha256=ONE, chunks=[], executables=executables)


def signed(listed: ExecutableList, *signers: CryptoSigner, payload_type: str = EXECUTABLES_TYPE) -> str:
    """The list in its envelope."""
    return sign(encode(listed), payload_type, *signers).decode()


def test_a_list_of_the_team_is_read() -> None:
    """Signed by the expected key, for this release."""
    verify = verify_with(TEAM.public_key)
    assert open_list(artifact(signed(LISTED, TEAM)), INFO, verify) == LISTED


@pytest.mark.parametrize(
    "executables",
    [
        pytest.param("", id="none"),
        pytest.param("{}", id="no envelope"),
        pytest.param(signed(LISTED, STRANGER), id="a stranger's"),
        pytest.param(signed(LISTED), id="unsigned"),
        pytest.param(signed(LISTED, TEAM, payload_type="application/vnd.flagship.offer+json"), id="another type"),
        pytest.param(signed(LISTED.model_copy(update={"version": "1.0.9"}), TEAM), id="an older release's"),
        pytest.param(signed(LISTED.model_copy(update={"component": "os"}), TEAM), id="another component's"),
        pytest.param(signed(LISTED.model_copy(update={"product": "sensor"}), TEAM), id="another product's"),
        pytest.param(signed(LISTED, TEAM).replace("application", "applicatiom"), id="changed"),
    ],
)
def test_any_other_list_is_refused(executables: str) -> None:
    """E_EXEC_SIGNATURE, whatever is wrong: a thief of release keys reuses no list and brings no own one."""
    with pytest.raises(ContentError) as caught:
        open_list(artifact(executables), INFO, verify_with(TEAM.public_key))
    assert caught.value.code is ErrorCode.EXEC_SIGNATURE
