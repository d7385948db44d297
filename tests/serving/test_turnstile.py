"""The turnstile turns away whole requests for predictions while the line is full, and lets everything else through."""

import asyncio
from typing import Any

import pytest

from tasks.serving.line import Line
from tasks.serving.turnstile import HEADS, TOGETHER, Head, Turnstile, _Held

BODY = b'{"rows":[]}'


def request(line=b"POST /projects/flights/predict HTTP/1.1", length=11, body=BODY):
    """The bytes of a request."""
    return line + b"\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % length + body


def refusals(most, *requests):
    """Which of the requests are turned away within one turn of the loop, and how many were counted."""

    async def scene():
        told = []
        turnstile = Turnstile(Line(most), lambda: told.append(1))
        return [Head.of(data) is not None and turnstile.refuses() for data in requests], len(told)

    return asyncio.run(scene())


def test_v_07_so_many_a_turn_pass_and_no_more():
    """Those that are on their way into the line count, too (V-07)."""
    assert refusals(2, *[request()] * 5) == ([False, False, True, True, True], 3)


PLACES = 64


class Asker:
    """A connection that asks for predictions, and keeps what became of it."""

    def __init__(self) -> None:
        self.said = []

    def answer(self, content):
        """Takes an answer."""
        self.said.append(content)

    def turn_away(self):
        """Takes a refusal."""
        self.said.append("refused")

    def let_in(self, _data):
        """Goes the usual way."""
        self.said.append("let in")


def held(asker: Any, project: str = "flights", rows: int = 0) -> _Held:
    """A request of a connection."""
    return _Held(asker, project, b"", b'{"rows":[%b]}' % b",".join([b"{}"] * rows))


def turned(seconds, asked, answer=b"said", in_line=0):
    """What became of requests for these projects, of so many rows, that came in one turn, where a body and each row take so long to be answered; how many were counted as refused, and how many were answered with one call each time in that turn."""

    async def scene():
        now, told, calls = [0.0], [], []

        def at_once(_project, bodies):
            calls.append(len(bodies))
            now[0] += seconds * sum(body.count(b"{") for body in bodies)
            return [answer] * len(bodies)

        line = Line(PLACES)
        line.count = in_line
        turnstile = Turnstile(line, lambda: told.append(1), at_once, lambda: now[0])
        askers = [Asker() for _ in asked]
        assert all(turnstile.holds(held(asker, *each)) for asker, each in zip(askers, asked, strict=True))
        await asyncio.sleep(0)
        refused, first = len(told), [*calls]
        for _ in range(TOGETHER):
            await asyncio.sleep(0)
        assert len(told) == refused
        assert all(len(asker.said) == 1 for asker in askers)
        return [asker.said[0] for asker in askers], len(told), first

    return asyncio.run(scene())


@pytest.mark.parametrize(("seconds", "least"), [(20e-6, 500), (1e-3, TOGETHER), (0.1, TOGETHER), (1e-7, 5000)])
def test_v_07_as_many_are_answered_together_as_a_refusal_may_wait_for(seconds, least):
    """However many come in a turn, the first are answered for 10 ms, nearly all of them with one call, and as many as the line has places in the next turn; the others are told to wait, each once (V-07)."""
    said, told, calls = turned(seconds, [("flights", 0)] * 5000)
    answered = 5000 - told
    assert said == [b"said"] * answered + ["refused"] * told
    assert min(least + PLACES, 5000) <= answered <= least + PLACES + TOGETHER // 4
    assert calls[0] == TOGETHER
    assert len(calls) <= 3


@pytest.mark.parametrize(("count", "refused"), [(PLACES, 0), (PLACES + TOGETHER, 0), (PLACES + TOGETHER + 1, 1)])
def test_v_07_nobody_is_refused_while_no_more_are_there_than_the_line_has_places(count, refused):
    """However long each takes; beyond those that one turn answers and those that may wait for the next one the last are told so (V-07)."""
    said, told, _ = turned(1.0, [("flights", 0)] * count)
    assert said == [b"said"] * (count - refused) + ["refused"] * refused
    assert told == refused


@pytest.mark.parametrize(("others", "what"), [(0, [b"said"]), (PLACES - 1, [b"said"]), (PLACES, ["refused"])])
def test_who_sends_more_or_leaves_ends_its_own_wait_alone(others, what):
    """Its answer must be out before what comes behind it; whoever else waits goes on waiting, and in a crowd it is refused (V-07)."""

    async def scene():
        told = []
        turnstile = Turnstile(Line(PLACES), lambda: told.append(1), lambda _, bodies: [b"said"] * len(bodies))
        crowd, leaves = [Asker() for _ in range(others)], Asker()
        for asker in [*crowd, leaves]:
            turnstile.holds(held(asker))
        for _ in range(2):
            turnstile.settle(leaves)
        assert not any(asker.said for asker in crowd)
        assert len(told) == what.count("refused")
        await asyncio.sleep(0)
        assert all(asker.said == [b"said"] for asker in crowd)
        return leaves.said

    assert asyncio.run(scene()) == what


def test_v_07_no_project_waits_for_another_one_s_crowd():
    """Two projects ask in one turn, one of them ten times as often and first: each has half of the time (V-07)."""
    said, _, _ = turned(20e-6, [("flights", 0)] * 3000 + [("thyroid", 0)] * 300)
    half = 250 + PLACES // 2
    assert half <= said[:3000].count(b"said") <= half + TOGETHER // 4
    assert half <= said[3000:].count(b"said") <= half + TOGETHER // 4


@pytest.mark.parametrize("light", [0, TOGETHER, 400])
def test_v_07_the_pace_of_small_bodies_promises_nothing_of_large_ones(light):
    """Many rows that stand behind small bodies, or first, end the turn when its time is over: the loop is held up by a body more at most (V-07)."""
    said, told, calls = turned(10e-6, [("flights", 0)] * light + [("flights", 199)] * 300)
    assert said[:light] == [b"said"] * light
    assert told == said.count("refused")
    seconds = 10e-6 * (light + 200 * (said[light:].count(b"said") - PLACES))
    assert 0.01 <= seconds <= 0.012
    assert len(calls) <= 5


def test_v_07_requests_that_are_not_answered_at_once_need_places_in_the_line():
    """While a canary begins nobody is answered at once: as many go the usual way as the line has places, the others are refused (V-07)."""
    said, told, _ = turned(1e-7, [("flights", 0)] * 5000, None, in_line=10)
    assert said == ["let in"] * 54 + ["refused"] * 4946
    assert told == 4946


def test_v_07_nobody_is_held_while_the_line_is_full():
    """What is computed in threads has its places; whoever comes beside it then is told to wait (V-07)."""

    async def scene():
        line, told = Line(2), []
        turnstile = Turnstile(line, lambda: told.append(1), lambda _, bodies: [b""] * len(bodies))
        line.count = 2
        return turnstile.holds(held(Asker())), len(told)

    assert asyncio.run(scene()) == (False, 1)


def test_a_head_is_let_in_on_whichever_connection_and_of_many_the_last():
    """What a head opens is known for all connections; but for one that may end its own, and of more than so many the eldest is forgotten."""
    turnstile = Turnstile(Line(), lambda: None)
    heads = [Head(b"POST /%d " % number, b"\r\n") for number in range(HEADS + 1)]
    for head in heads:
        turnstile.remember(head, "flights")
    closing, long = Head(b"POST / \r\nConnection: Close\r\n", b""), Head(b"x" * 5000, b"")
    turnstile.remember(closing, "flights")
    turnstile.remember(long, "flights")
    assert [turnstile.named(head) for head in (*heads, closing, long)] == [None, *["flights"] * HEADS, None, None]


@pytest.mark.parametrize(
    "data",
    [
        request(b"GET /healthz HTTP/1.1"),
        request(b"GET /metrics HTTP/1.1"),
        request(b"POST /projects/flights/batches HTTP/1.1"),
        request(b"POST /projects/flights/outcomes HTTP/1.1"),
        request(b"POST /projects/a/b/predict HTTP/1.1"),
        request(b"POST /invocations/a\r\nX: b HTTP/1.1"),
        request(length=len(BODY) + 1),
        request(length=len(BODY) - 1),
        request()[:-20],
        request() + request(),
        b"",
    ],
)
def test_what_is_not_one_whole_request_for_predictions_passes(data):
    """Readiness, counters, uploads, outcomes, parts of a request and several at once are taken apart as ever."""
    assert refusals(0, data) == ([False], 0)


@pytest.mark.parametrize("path", [b"/projects/flights/predict", b"/v2/models/flights/infer", b"/invocations/flights"])
def test_the_answer_is_the_one_of_the_line(path):
    """Whoever is turned away meets a whole 429 with a reason and a time to come again, in every protocol."""
    assert refusals(0, request(b"POST " + path + b" HTTP/1.1")) == ([True], 1)
    head, body = Turnstile(Line(0), lambda: None).refusal.split(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 429 ")
    assert b"\r\nRetry-After: 1\r\n" in head
    assert head.endswith(b"\r\nContent-Length: %d" % len(body))
    assert body.startswith(b'{"error":')
