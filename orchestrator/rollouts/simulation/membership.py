"""Who takes part in a simulated rollout: modelled devices with the labels and groups that the plan asks for."""

import json
from collections.abc import Iterator, Sequence
from random import Random

from orchestrator.model.candidate import SITE, Candidate
from orchestrator.model.plan import RolloutSpec
from orchestrator.model.selector import Operator, Selector
from orchestrator.rollouts.members import Facts, Groups, Judge
from orchestrator.rollouts.plans import Plan, Roster
from orchestrator.rollouts.simulation.devices import Modelled
from orchestrator.rollouts.simulation.habits import Habits
from protocol.manifest import ReleaseInfo
from protocol.versions import compare

HARDWARE = "simulated"
FORMER = "0"
"""The version that every device runs before."""
STAGE_SHARE = 0.1
"""Of devices, for a group or label that a stage asks for and nobody gave a share."""


def choose(devices: Sequence[Modelled], spec: RolloutSpec, habits: Habits, random: Random) -> Plan:
    """Choose members and place them, as an orchestrator does.

    Raises:
        ConflictError: No member, an empty stage, or members that no stage covers.
    """
    product, _, version = spec.release.partition("/")
    info = ReleaseInfo(
        product=product, version=version, component="app", hardware=[HARDWARE], counter=0, space_bytes=0,
        pieces=["0" * 64], chunk_count=1,
    )  # fmt: skip
    groups = _groups(devices, spec, habits, random)
    roster = Roster(spec, Judge(spec.members, Facts(info=info, compare=compare, groups=groups)).exclude, groups)
    roster.add(_candidates(devices, spec, habits, product, random))
    return roster.place("simulation", Random(random.getrandbits(64)))


def sites_of(spec: RolloutSpec, habits: Habits) -> list[str]:
    """Values of the label ``site``: those that the plan names, then numbered ones."""
    named = [value for key, value in _asked(spec) if key == SITE]
    return [*named, *(f"site-{number}" for number in range(1, habits.sites + 1))][: max(habits.sites, len(named))]


def _candidates(
    devices: Sequence[Modelled], spec: RolloutSpec, habits: Habits, product: str, random: Random
) -> Iterator[Candidate]:
    sites, labels = sites_of(spec, habits), _label_shares(spec, habits)
    components = json.dumps({"app": FORMER})
    for number, device in enumerate(devices):
        found = {SITE: sites[number % len(sites)]}
        found |= {label: value for label, value, share in labels if random.random() < share}
        texts = (components, json.dumps(found))
        yield Candidate(device.name, product, HARDWARE, "enrolled", 0, 1, 0, *texts)


def _groups(devices: Sequence[Modelled], spec: RolloutSpec, habits: Habits, random: Random) -> Groups:
    of_stages = {stage.group for stage in spec.stages if stage.group}
    named = of_stages | {limit.group for limit in spec.max_unavailable if limit.group}
    shares = dict.fromkeys(sorted(named), STAGE_SHARE)
    if spec.members.group:
        shares[spec.members.group] = 1.0
    shares |= {name: share for name, share in habits.groups.items() if name in shares}
    return {
        name: frozenset(device.name for device in devices if random.random() < share) for name, share in shares.items()
    }


def _label_shares(spec: RolloutSpec, habits: Habits) -> list[tuple[str, str, float]]:
    """(label, value, share of devices); all devices have what the members' selector asks for."""
    of_members = set(_terms(spec.members.selector))
    shares: dict[tuple[str, str], float] = {}
    for key, value in _asked(spec):
        if key not in {SITE, "id", "product", "hardware"} and not key.startswith("component."):
            shares[key, value] = 1.0 if (key, value) in of_members else STAGE_SHARE
    for text, share in habits.labels.items():
        label, _, value = text.partition("=")
        shares[label, value] = share
    return [(label, value, share) for (label, value), share in shares.items()]


def _asked(spec: RolloutSpec) -> list[tuple[str, str]]:
    found = [*_terms(spec.members.selector), *(pair for stage in spec.stages for pair in _terms(stage.selector))]
    return list(dict.fromkeys(found))


def _terms(selector: str | None) -> list[tuple[str, str]]:
    if selector is None:
        return []
    terms = Selector.parse(selector).terms
    return [(term.key, value) for term in terms if term.operator is not Operator.NOT_EQUAL for value in term.values]
