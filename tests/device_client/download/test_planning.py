"""The pure rules of a download together, under any order of events: it ends, and asks for nothing that it has."""

from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from device_client.download.link_estimate import Asked, LinkEstimate
from device_client.download.planner import Plan, Window, WindowLimits
from device_client.download.source_choice import ChoiceLimits, Misses, SourceChoice

MOST, MOST_BYTES, LANES, SOURCES = 8, 5000, 2, 3


class Download(RuleBasedStateMachine):
    """What the lanes do, with the world's part played by chance."""

    @initialize(sizes=st.lists(st.integers(1, 5000), max_size=30), seed=st.integers(0, 2**32))
    def begin(self, sizes: list[int], seed: int) -> None:
        """A download of some chunks."""
        random = Random(seed)
        self.sizes = {f"c{number}": size for number, size in enumerate(sizes)}
        self.plan = Plan(self.sizes, WindowLimits(4, MOST, MOST_BYTES), random)
        self.choice = SourceChoice(SOURCES, ChoiceLimits(), random)
        self.misses, self.links = Misses(), [LinkEstimate() for _ in range(SOURCES)]
        self.ready = [True] * SOURCES
        self.out: list[tuple[Window, dict[int, list[str]], float]] = []
        self.judged: list[tuple[str, int]] = []
        self.verified: set[str] = set()
        self.given_up: set[str] = set()
        self.received = 0
        self.now = 1000.0

    def _ask(self) -> None:
        current = self.choice.choose(self.ready, self.now)
        if current is None or len(self.out) == LANES:
            return
        most_bytes = self.links[current].window_bytes(MOST_BYTES)
        window = self.plan.next_window(self.now, most_bytes)
        if window is None:
            return
        asked = set(window.cids)
        assert 0 < len(asked) == len(window.cids) <= MOST
        assert window.size_bytes == sum(self.sizes[cid] for cid in asked)
        assert window.size_bytes <= most_bytes or len(asked) == 1
        assert window.size_bytes <= MOST_BYTES
        assert not asked & (self.verified | self.given_up)
        assert not any(asked & set(other.cids) for other, _, _ in self.out)
        assert not asked & {cid for cid, _ in self.judged}
        routes = self.misses.route(window.cids, current, self.ready)
        assert sorted(cid for cids in routes.values() for cid in cids) == sorted(window.cids)
        assert all(self.ready[source] for source in routes)
        self.out.append((window, routes, self.now))

    @rule()
    def ask(self) -> None:
        """A lane asks."""
        self._ask()

    @rule(seconds=st.floats(0.01, 100))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds

    @rule(source=st.integers(0, SOURCES - 1), is_ready=st.booleans())
    def turn(self, source: int, is_ready: bool) -> None:
        """A source comes or goes."""
        self.ready[source] = is_ready

    @rule(source=st.integers(0, SOURCES - 1))
    def too_slow(self, source: int) -> None:
        """A source is found to be slow."""
        if self.choice.others(source, self.ready, self.now):
            self.choice.failed(source, self.now)

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        """A window is over, in whatever way."""
        window, routes, asked_at = self.out.pop(data.draw(st.integers(0, len(self.out) - 1)))
        lost: list[str] = []
        for source, cids in routes.items():
            came = [cid for cid in cids if data.draw(st.booleans())]
            absent = [cid for cid in cids if cid not in came]
            self.received += sum(self.sizes[cid] for cid in came)
            self.judged += [(cid, source) for cid in came]
            self.choice.answered(source, came=len(came))
            if not absent:
                asked = Asked(asked_at, max(0, self.received - window.size_bytes))
                self.links[source].answered(asked, self.now, self.received, self.now - asked_at)
            elif data.draw(st.booleans()):
                self.plan.unsent(absent)
                self.links[source].forget()
            else:
                lost += absent
                for cid in absent:
                    self.misses.missed(cid, source)
        if lost:
            assert set(self.plan.lost(lost, self.now)) <= set(lost)
        else:
            self.plan.came(window)

    @precondition(lambda self: self.judged)
    @rule(verdict=st.sampled_from(["good", "bad", "replaced"]))
    def judge(self, verdict: str) -> None:
        """What came is verified, or not."""
        cid, source = self.judged.pop(0)
        match verdict:
            case "good":
                self._verify(cid)
            case "bad":
                self.misses.spoiled(cid, source)
                assert self.plan.refused([cid], self.now) == (cid,)
            case _:
                other = f"full {len(self.sizes)}"
                self.sizes[other] = 100
                self.given_up.add(cid)
                self.plan.replace(cid, {other: 100})
                self.misses.settled([cid])

    def _verify(self, cid: str) -> None:
        assert cid not in self.verified
        self.verified.add(cid)
        self.plan.verified([cid])
        self.misses.settled([cid])

    @invariant()
    def there_is_always_something_to_wait_for(self) -> None:
        """Done exactly when all is verified; else something is out, or due."""
        if not hasattr(self, "plan"):
            return
        assert self.plan.done == (set(self.sizes) == self.verified | self.given_up)
        if not self.plan.done and not self.out and not self.judged:
            assert self.plan.next_due() is not None

    def teardown(self) -> None:
        """From wherever it is, an honest source brings it to its end in as many windows as are needed."""
        if not hasattr(self, "plan"):
            return
        for cid, _ in self.judged:
            self._verify(cid)
        self.judged = []
        for window, _, _ in self.out:
            self.plan.unsent(window.cids)
        self.out = []
        self.ready[1] = True
        for _ in range(3 * len(self.sizes) + 3):
            if self.plan.done:
                break
            self._ask()
            if not self.out:
                self.now += max(0.1, (self.plan.next_due() or 0.0) - self.now, self.choice.next_change(self.now) or 0.0)
                continue
            window, _, _ = self.out.pop()
            self.plan.came(window)
            for cid in window.cids:
                self._verify(cid)
        assert self.plan.done
        assert not self.misses._misses


Download.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
test_any_order_of_events = Download.TestCase
