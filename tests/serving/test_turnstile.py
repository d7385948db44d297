"""The turnstile turns away whole requests for predictions while the line is full, and lets everything else through."""

import asyncio
from typing import Any

import pytest

from tasks.serving.line import Line
from tasks.serving.turnstile import Head, Turnstile, _Held

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


class Asker:
    """A connection that asks for predictions, and keeps the answers."""

    def __init__(self) -> None:
        self.said = []

    def let_go(self, _data, content):
        """Takes an answer."""
        self.said.append(content)


def held(asker: Any) -> _Held:
    """A request of a connection."""
    return _Held(asker, "flights", b"", BODY)


def held_in_turns(most, seconds, turns):
    """How many of 5,000 requests have a place in each turn, where one takes so long to be answered, and what all are told."""

    async def scene():
        now, asker = [0.0], Asker()

        def at_once(_project, bodies):
            now[0] += seconds * len(bodies)
            return [b"said"] * len(bodies)

        turnstile = Turnstile(Line(most), lambda: None, at_once, lambda: now[0])
        counts = []
        for _ in range(turns):
            counts.append(sum(turnstile.holds(held(asker)) for _ in range(5000)))
            await asyncio.sleep(0)
        return counts, asker.said

    return asyncio.run(scene())


def test_v_07_as_many_are_answered_together_as_a_refusal_may_wait_for():
    """Their number follows the pace: 10 ms of answers of 20 µs each; those of 1 ms get the places of the line, and no fewer (V-07)."""
    counts, said = held_in_turns(64, 20e-6, 100)
    assert counts[0] == 64
    assert counts == sorted(counts)
    assert counts[-1] in {500, 501}
    assert said == [b"said"] * sum(counts)
    assert held_in_turns(64, 1e-3, 100)[0] == [64] * 100


def test_v_07_requests_that_are_not_answered_at_once_need_places_in_the_line():
    """While a canary begins nobody is answered at once: 50 such turns teach no pace, and hold no more than the line has places (V-07)."""

    async def scene():
        now, line, answers = [0.0], Line(64), [None]

        def at_once(_project, bodies):
            now[0] += (20e-6 if answers[0] else 1e-7) * len(bodies)
            return answers * len(bodies)

        async def turns(turnstile, count):
            counts = []
            for _ in range(count):
                counts.append(sum(turnstile.holds(held(Asker())) for _ in range(5000)))
                await asyncio.sleep(0)
            return counts

        made = [Turnstile(line, lambda: None, at_once, lambda: now[0]) for _ in range(2)]
        fresh = await turns(made[0], 50)
        answers[0] = b"said"
        before = await turns(made[1], 100)
        answers[0] = None
        first, *others = await turns(made[1], 50)
        line.count = 10
        busy = await turns(made[1], 50)
        answers[0] = b"said"
        line.count = 0
        return fresh, before[-1], first, others, busy, await turns(made[1], 2)

    fresh, before, first, others, busy, after = asyncio.run(scene())
    assert fresh == [64] * 50
    assert before == first >= 500
    assert others == [64] * 49
    assert busy == [54] * 50
    assert after == [64, before]


def test_v_07_nobody_is_held_while_the_line_is_full():
    """What is computed in threads has its places; whoever comes beside it then is told to wait (V-07)."""

    async def scene():
        line, told = Line(2), []
        turnstile = Turnstile(line, lambda: told.append(1), lambda _, bodies: [b""] * len(bodies))
        line.count = 2
        return turnstile.holds(held(Asker())), len(told)

    assert asyncio.run(scene()) == (False, 1)


@pytest.mark.parametrize(
    "data",
    [
        request(b"GET /healthz HTTP/1.1"),
        request(b"GET /metrics HTTP/1.1"),
        request(b"POST /projects/flights/batches HTTP/1.1"),
        request(b"POST /projects/flights/outcomes HTTP/1.1"),
        request(b"POST /projects/a/b/predict HTTP/1.1"),
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
