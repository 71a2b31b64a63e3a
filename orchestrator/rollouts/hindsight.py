"""What a plan's rules would have said of rollouts that are over. Pure; the one place that knows how rules are asked."""

from collections.abc import Mapping, Sequence

from orchestrator.model.plan import RolloutSpec
from orchestrator.rollouts.rules import halt_figures, stage_counts


def would_halt(
    spec: RolloutSpec, stages: Sequence[tuple[str, int]], counts: Mapping[int, Mapping[str, int]]
) -> list[str]:
    """The figures of every halt rule of a plan that a past rollout's final counts meet; empty where it goes through.

    Args:
        spec: The plan whose rules are tried.
        stages: (name, members) of the past rollout.
        counts: Its final counts, by stage and key.
    """
    plans = [spec.stages[min(position, len(spec.stages) - 1)] for position in range(len(stages))]
    found = [stage_counts(name, members, counts.get(position, {})) for position, (name, members) in enumerate(stages)]
    return [figure.text for _, figure in halt_figures(list(zip(plans, found, strict=True)), spec) if figure.met]
