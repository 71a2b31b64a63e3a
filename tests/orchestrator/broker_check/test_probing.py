"""Real brokers, fit and unfit, and nothing left on them."""

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.broker_check.figures import Finding, Verdict
from orchestrator.broker_check.judging import best_qos, best_window, judge, overall
from orchestrator.errors import UnreachableError
from tests.orchestrator.broker_check.brokers import BOUNDS, Broker, running

SMALL = replace(BOUNDS, most_bytes=4 * 2**20, others=100)


def _of(findings: list[Finding], probe: str) -> Finding:
    return next(one for one in findings if one.probe == probe)


def test_the_generated_configuration_is_fit(tmp_path: Path) -> None:
    """Every probe of our own broker passes, and what was published for it is gone."""
    with running(tmp_path) as broker:
        figures = broker.check()
        findings = judge(figures)
        assert {one.probe: one.verdict for one in findings if one.verdict is not Verdict.FIT} == {}
        assert overall(findings) is Verdict.FIT
        assert (best_window(figures), best_qos(figures)) == (64, 1)
        assert figures.read_back == figures.acknowledged > 0
        assert broker.retained() == 0


def test_small_queues_are_named_with_the_window_that_fits(tmp_path: Path) -> None:
    """A broker that drops bursts without a word is found out by what arrives."""
    limits = {
        "max_queued_messages": "max_queued_messages 20",
        "max_queued_bytes": "",
        "max_inflight_messages": "max_inflight_messages 4",
    }
    with running(tmp_path, **limits) as broker:
        figures = broker.check(replace(BOUNDS, others=100))
        finding = _of(judge(figures), "windows, QoS 1")
        assert finding.verdict is Verdict.LIMITED, finding
        assert 0 < best_window(figures) < 64
        assert f"download.max_window = {best_window(figures)}" in finding.advice
        assert _of(judge(figures), "wildcard").verdict is Verdict.UNFIT
        assert broker.retained() == 0


def test_a_broker_that_keeps_nothing_is_unfit(tmp_path: Path) -> None:
    """It refuses retained messages, or takes them and gives nothing back."""
    with running(tmp_path, set_tcp_nodelay="retain_available false") as broker:
        figures = broker.check(SMALL)
        assert overall(judge(figures)) is Verdict.UNFIT
        assert _of(judge(figures), "read-back").verdict is Verdict.UNFIT


def test_a_broker_without_access_lists_is_unfit(tmp_path: Path) -> None:
    """A device that may write chunks or announcements, or read others' offers, is named; its forgeries are cleared."""
    with running(tmp_path, acl_file="") as broker:
        figures = broker.check(SMALL)
        finding = _of(judge(figures), "access list")
        assert finding.verdict is Verdict.UNFIT
        assert "announce" in finding.figure
        assert figures.spied
        assert broker.retained() == 0


def test_packets_that_are_too_small_for_chunks_are_found(tmp_path: Path) -> None:
    """The largest chunk must go through."""
    with running(tmp_path, max_packet_size="max_packet_size 100000") as broker:
        assert _of(judge(broker.check(SMALL)), "packet size").verdict is Verdict.UNFIT
        assert broker.retained() == 0


def test_time_that_runs_out_leaves_nothing_behind(tmp_path: Path) -> None:
    """What was not probed is said, and what was published is cleared all the same."""
    with running(tmp_path) as broker:
        figures = broker.check(replace(BOUNDS, timeout_s=1.0, others=100, stall_s=0.8))
        assert "--timeout" in figures.skipped
        assert overall(judge(figures)) is Verdict.LIMITED
        assert broker.retained() == 0


def test_a_broker_that_is_not_there(tmp_path: Path) -> None:
    """Said in one sentence with the address."""
    with running(tmp_path) as broker:
        gone = Broker(replace(broker.delivery, port=1), broker.device, broker.topics)
        with pytest.raises(UnreachableError, match=r"broker 127\.0\.0\.1:1: Connection refused"):
            gone.check(SMALL)


def test_without_a_device_the_access_list_is_not_judged(tmp_path: Path) -> None:
    """Not probed is not fit."""
    with running(tmp_path) as broker:
        findings = judge(broker.check(SMALL, device=False))
        assert _of(findings, "access list").verdict is Verdict.UNKNOWN
        assert overall(findings) is Verdict.LIMITED
