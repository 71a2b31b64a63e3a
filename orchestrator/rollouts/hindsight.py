"""What a plan's rules would have said of rollouts that are over. Pure; the one place that knows how rules are asked."""

from collections.abc import Mapping, Sequence

from orchestrator.model.plan import RolloutSpec
from orchestrator.rollouts.rules import count_rule, failure_rule, stage_counts


def would_halt(
    spec: RolloutSpec, stages: Sequence[tuple[str, int]], counts: Mapping[int, Mapping[str, int]]
) -> list[str]:
    """The figures of every halt rule of a plan that a past rollout's final counts meet; empty where it goes through.

    Args:
        spec: The plan whose rules are tried.
        stages: (name, members) of the past rollout.
        counts: Its final counts, by stage and key.
    """
    found = [stage_counts(name, members, counts.get(position, {})) for position, (name, members) in enumerate(stages)]
    figures = [failure_rule(stage, spec) for stage in found]
    whole = count_rule(found, spec)
    return [figure.text for figure in (*figures, *([whole] if whole else [])) if figure.met]
