"""Plans in files: what is written is what is meant, and what is wrong has a line."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.cli.plan_file import MAX_BYTES, read_plan_file
from orchestrator.errors import NotFoundError, UsageError
from orchestrator.model.plan import Members, StageSpec

WHOLE = """\
# A plan
release: cam/2.0.0
members:
  selector: site=lab
stages:
  - {name: canary, devices: [a, b], soak_s: 15m}
  - name: all
    percent: 100
success_ratio: 95%
site_bytes_per_hour: 2 GB
pace_per_minute: 1e2
emergency: true
end_at: 2099-12-01T03:00:00Z
retries:
  download: {times: 2}
"""


def wrong(path: Path, text: str) -> str:
    """The complaint, without the path."""
    path.write_text(text)
    with pytest.raises(UsageError) as refused:
        read_plan_file(path)
    return str(refused.value).removeprefix(str(path))


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    """A file to write to."""
    return tmp_path / "plan.yaml"


def test_a_plan_is_read(plan: Path) -> None:
    """Figures as people write them; comments; both ways of YAML."""
    plan.write_text(WHOLE)
    spec = read_plan_file(plan)
    assert spec.release == "cam/2.0.0"
    assert spec.members == Members(selector="site=lab")
    assert spec.stages == [StageSpec(name="canary", devices=("a", "b"), soak_s=900), StageSpec(name="all", percent=100)]
    assert (spec.success_ratio, spec.site_bytes_per_hour, spec.pace_per_minute) == (0.95, 2 * 10**9, 100)
    assert spec.emergency
    assert spec.end_at is not None
    assert spec.end_at.year == 2099
    assert read_plan_file(plan, release="cam/3").release == "cam/3"


def test_json_is_a_plan_too(plan: Path) -> None:
    """What the API shows can be given back."""
    plan.write_text(WHOLE)
    spec = read_plan_file(plan)
    other = plan.with_suffix(".json")
    other.write_text(json.dumps(spec.model_dump(mode="json"), indent=1))
    assert read_plan_file(other) == spec


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("release: a/1\nrelease: a/2\n", ":2: key 'release' is there twice", id="twice"),
        pytest.param("release: a/1\nstages: [{name: x, percent: 100, name: y}]\n", ":2: key 'name' is", id="inside"),
        pytest.param(
            "release: a/1\nstages:\n- {name: x, percent: 100}\nhalt_rato: 0.1\n",
            ":4: halt_rato: unknown key; did you mean halt_ratio?",
            id="misspelt",
        ),
        pytest.param(
            "release: a/1\nstages:\n- name: x\n  percent: 100\n  halt_rules:\n  - {ratoi: 0.1, count: 3}\n",
            ":6: stages[0].halt_rules[0].ratoi: unknown key; did you mean ratio?",
            id="misspelt deep inside",
        ),
        pytest.param(
            "release: a/1\nmembers: {zzz: 1}\nstages: [{name: x, percent: 100}]\n",
            ":2: members.zzz: unknown key; known here: devices, dynamic, group, reverts, selector, unhealthy",
            id="unknown",
        ),
        pytest.param(
            "release: a/1\nstages:\n- name: x\n  percent: 7o\n", ":4: stages[0].percent: expected", id="figure"
        ),
        pytest.param("release: a/1\nstages: []\n", ":2: stages: List should have at least 1 item", id="no stage"),
        pytest.param(
            "release: a/1\nstages:\n- {name: x, devices: [17], soak_s: 1}\n",
            ":3: stages[0].devices[0]: expected a valid string, found 17",
            id="a number that is an id",
        ),
        pytest.param("release: [a\nstages: 1\n", ":2: cannot be read as YAML", id="not YAML"),
        pytest.param("a: &x [1]\nb: *x\n", ":1: anchors and aliases", id="alias"),
        pytest.param("a: &x [*x]\n", ":1: anchors and aliases", id="a list in itself"),
        pytest.param("a: !!python/object:os.system {}\n", "", id="tag"),
        pytest.param("a: !secret b\n", ":1: tag '!secret': tags are not for plans", id="own tag"),
        pytest.param("? [a, b]\n: c\n", ":1: a key is one word", id="list as a key"),
        pytest.param("a: 1\n---\nb: 1\n", ":3: a second document", id="two"),
        pytest.param("- 1\n", ": expected keys such as release and stages, found a list", id="list"),
        pytest.param("", ": expected keys such as release and stages, found nothing", id="empty"),
        pytest.param("[" * 100_000, "", id="deep"),
        pytest.param("a: \x00", "", id="control character"),
        pytest.param("#" * (MAX_BYTES + 1), ": expected a plan of at most 1 MiB, found more", id="large"),
    ],
)
def test_what_is_wrong_has_a_place(plan: Path, text: str, says: str) -> None:
    """The line, the key and what was meant."""
    assert wrong(plan, text).startswith(says)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"release": "a/1", "release": "a/2"}', ": key 'release' is there twice"),
        ('{"release": "a/1",\n "stages" 1}', ":2: cannot be read as JSON"),
        ('{"release": "a/1", "stages": [{"name": "x", "percent": NaN}]}', ": NaN is no figure"),
        ("[" * 100_000, ": is nested too deeply"),
    ],
)
def test_json_is_read_with_the_same_care(plan: Path, text: str, says: str) -> None:
    """Also where Python's reader is lenient."""
    assert wrong(plan.with_suffix(".json"), text).startswith(says)


def test_text_stays_text(plan: Path) -> None:
    """``no`` is a country, ``22:00`` a time, ``1.0`` in quotes a version."""
    plan.write_text("release: 'a/1.0'\nstages:\n- {name: no, devices: [on, off, 'true']}\n")
    assert read_plan_file(plan).stages == [StageSpec(name="no", devices=("on", "off", "true"))]


def test_files_that_are_none(tmp_path: Path) -> None:
    """Missing, a folder, or no text."""
    with pytest.raises(NotFoundError, match="there is no such file"):
        read_plan_file(tmp_path / "none.yaml")
    with pytest.raises(UsageError, match="cannot be read"):
        read_plan_file(tmp_path)
    (tmp_path / "x.yaml").write_bytes(b"a: \xff")
    with pytest.raises(UsageError, match="UTF-8; byte 3"):
        read_plan_file(tmp_path / "x.yaml")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.text(max_size=200), st.text(alphabet="ab:-[]{}&*!? \n'\"|>1.", max_size=60)))
def test_any_text_is_read_or_refused(plan: Path, text: str) -> None:
    """In one sentence, never by another error."""
    for path in (plan, plan.with_suffix(".json")):
        path.write_bytes(text.encode(errors="surrogatepass"))
        with pytest.raises(UsageError):
            read_plan_file(path)
