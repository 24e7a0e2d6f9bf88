"""That the soak with kills would notice what it is there to notice. tests/nodes runs it."""

import random
from types import SimpleNamespace

import pytest
from tools.soak.kills.clients import Outcome, Stream
from tools.soak.kills.cluster import Broken
from tools.soak.kills.rounds import Rounds

CUT = "REST line: gpu1:7 has not answered for 2 s"
AT = 100.0
HERE, ELSEWHERE = frozenset({1}), frozenset({2})


@pytest.fixture
def rounds():
    return Rounds(None, None, ("m",), random.Random(1))


def stream(ended_at=0.0, error="", text="0.1.2.", last_at=AT):
    found = SimpleNamespace(name="stream", ended_at=ended_at, error=error, text=text, last_at=last_at)
    found.exact = Stream.exact.fget(found)
    return found


@pytest.mark.parametrize(
    ("judged", "hosts", "fault"),
    [
        (stream(AT + 2, CUT), HERE, None),
        (stream(last_at=AT + 2), ELSEWHERE, None),
        (stream(AT + 2, CUT), ELSEWHERE, "ended although its hosts run"),
        (stream(last_at=AT + 2), HERE, "goes on without its hosts"),
        (stream(), HERE, "hangs"),
        (stream(), ELSEWHERE, "hangs"),
        (stream(AT + 9, CUT), HERE, "got its error after 9.0 s"),
        (stream(AT + 2, "REST 500: internal error"), HERE, "an error that explains nothing"),
        (stream(AT + 2), HERE, "ended as if it were complete"),
        (stream(AT + 2, CUT, "0.2.3."), HERE, "lost a piece"),
        (stream(AT + 2, CUT, "0.1.1.2."), HERE, "lost a piece"),
    ],
)
def test_streams_are_judged(rounds, judged, hosts, fault):
    rounds._judge(judged, {1}, Broken("it", AT, hosts), "host")
    assert [fault in each for each in rounds.verdict.faults] == [True] * (fault is not None), rounds.verdict.faults


@pytest.mark.parametrize(
    ("outcome", "fault"),
    [
        (Outcome("request", AT - 1, AT + 9, "ab", ""), None),
        (Outcome("request", AT - 1, AT + 2, "", CUT), None),
        (Outcome("request", AT + 50, AT + 52, "", CUT), None),
        (Outcome("request", AT - 1, AT + 9, "a", ""), "has the answer 'a'"),
        (Outcome("request", AT - 1, AT + 99, "ab", ""), "took 100.0 s"),
        (Outcome("request", AT - 1, AT + 9, "", CUT), "got its error after 9.0 s"),
        (Outcome("request", AT - 2, AT - 1, "", CUT), "failed on a whole cluster"),
    ],
)
def test_short_requests_are_judged(rounds, outcome, fault):
    rounds._judge_short(outcome, Broken("it", AT, HERE))
    assert [fault in each for each in rounds.verdict.faults] == [True] * (fault is not None), rounds.verdict.faults


@pytest.mark.parametrize(("text", "retried", "faults"), [("a", True, 0), ("", False, 0), ("", True, 1)])
def test_a_request_without_a_token_may_not_fail_where_it_can_run_again(rounds, text, retried, faults):
    cut = "gRPC UNAVAILABLE: gpu1:7 has not answered for 2 s"
    rounds._judge_short(Outcome("request", AT - 1, AT + 2, text, cut), Broken("it", AT, HERE, retried=retried))
    assert len(rounds.verdict.faults) == faults
