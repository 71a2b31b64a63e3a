"""Whatever comes in whatever order: a guesser is bounded, and nobody else pays for it."""

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.web import failure_limit
from orchestrator.web.failure_limit import FailureLimit, Verdict

MOST, WINDOW_S = 3, 10.0
GOOD = frozenset({"good-1", "good-2"})
steps = st.tuples(
    st.sampled_from(["a", "b"]),
    st.sampled_from([*sorted(GOOD), *(f"wrong-{n}" for n in range(8))]),
    st.sampled_from([0.0, 0.0, 0.5, 3.0, 9.75, 10.0, 30.0]),
    st.booleans(),
)


@given(st.lists(steps, max_size=80))
def test_no_window_has_more_failures_than_the_limit(plan: list[tuple[str, str, float, bool]]) -> None:
    """Of one address; tokens that opened, were revoked and come again count like every other."""
    limit, good, now_s = FailureLimit(MOST, WINDOW_S), set(GOOD), 0.0
    judged: dict[str, deque[float]] = {"a": deque(), "b": deque()}
    for address, token, wait_s, is_revoked in plan:
        now_s += wait_s
        if is_revoked and token in good:
            good.discard(token)
            limit.closed(token)
        if limit.ask(address, token, now_s) is not Verdict.JUDGE:
            continue
        if token in good:
            limit.opened(token)
            continue
        limit.failed(address, token, now_s)
        judged[address].append(now_s)
        assert sum(now_s - at < WINDOW_S for at in judged[address]) <= MOST


@given(st.lists(steps, max_size=80))
def test_who_waits_as_told_is_judged(plan: list[tuple[str, str, float, bool]]) -> None:
    """The wait that is told is long enough, never longer than the window, and nothing while nobody must wait."""
    limit, now_s = FailureLimit(MOST, WINDOW_S), 0.0
    for address, token, wait_s, _ in plan:
        now_s += wait_s
        told_s = limit.wait_s(address, now_s)
        assert 0 <= told_s <= WINDOW_S
        match limit.ask(address, token, now_s):
            case Verdict.WAIT:
                assert told_s > 0
                now_s += told_s
                assert limit.ask(address, token, now_s) is Verdict.JUDGE
                limit.failed(address, token, now_s)
            case Verdict.JUDGE:
                limit.failed(address, token, now_s)


def fill(limit: FailureLimit, address: str, now_s: float = 0.0) -> None:
    """As many different wrong tokens as are judged."""
    for number in range(MOST):
        assert limit.ask(address, f"guess-{number}", now_s) is Verdict.JUDGE
        limit.failed(address, f"guess-{number}", now_s)


def test_the_same_wrong_token_again_is_no_new_guess() -> None:
    """A client that was not told of a revocation locks nobody out; and after the window it is looked at again."""
    limit = FailureLimit(MOST, WINDOW_S)
    limit.failed("a", "stale", 0.0)
    for second in range(1, 10):
        assert limit.ask("a", "stale", float(second)) is Verdict.REFUSE
    assert limit.ask("a", "another", 9.0) is Verdict.JUDGE
    assert limit.ask("a", "stale", 10.0) is Verdict.JUDGE


def test_a_guesser_locks_out_no_token_that_opened_before() -> None:
    """A halt must get through; a token that nobody saw yet waits, as does one that was revoked."""
    limit = FailureLimit(MOST, WINDOW_S)
    limit.opened("good")
    fill(limit, "a")
    assert limit.ask("a", "good", 1.0) is Verdict.JUDGE
    assert limit.ask("a", "new", 1.0) is Verdict.WAIT
    limit.closed("good")
    assert limit.ask("a", "good", 1.0) is Verdict.WAIT


def test_addresses_do_not_pay_for_one_another() -> None:
    """Each has a limit of its own."""
    limit = FailureLimit(MOST, WINDOW_S)
    fill(limit, "a")
    assert limit.ask("a", "x", 0.0) is Verdict.WAIT
    assert limit.ask("b", "x", 0.0) is Verdict.JUDGE


def test_memory_is_bounded() -> None:
    """Those heard last are remembered."""
    limit = FailureLimit(1, WINDOW_S)
    for number in range(failure_limit.MAX_ADDRESSES + 1):
        limit.failed(f"address-{number}", "x", 0.0)
    assert limit.ask("address-0", "y", 1.0) is Verdict.JUDGE
    assert limit.ask("address-1", "y", 1.0) is Verdict.WAIT
    for number in range(failure_limit.MAX_FAMILIAR + 1):
        limit.opened(f"token-{number}")
    assert limit.ask("address-1", "token-0", 1.0) is Verdict.WAIT
    assert limit.ask("address-1", "token-1", 1.0) is Verdict.JUDGE
