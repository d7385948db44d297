"""The line lets so many in and no more, does quick work in turns, and hands every fault to whoever waits for it."""

import asyncio
import threading

import pytest

from tasks.serving.answers import Refusal
from tasks.serving.line import Line


def scene(play):
    """Runs a coroutine that is given a line for four."""

    async def run():
        line = Line(4)
        try:
            return await play(line)
        finally:
            line.close()

    return asyncio.run(run())


@pytest.mark.parametrize("quick", [True, False])
def test_v_07_the_one_too_many_is_told_so_at_once(quick):
    """While four are in the fifth gets 429, before anything is done for it; afterwards it is let in (V-07)."""
    begun, hold = [], threading.Event()

    def work():
        begun.append(1)
        return quick or hold.wait(30)

    async def play(line):
        four = [asyncio.create_task(line.run(work, quick=quick)) for _ in range(4)]
        await asyncio.sleep(0)
        with pytest.raises(Refusal) as refused:
            await line.run(work, quick=quick)
        assert line.count == 4
        hold.set()
        await asyncio.gather(*four)
        assert line.count == 0
        return refused.value, await line.run(work, quick=quick)

    refusal, later = scene(play)
    assert (refusal.status, refusal.headers) == (429, {"Retry-After": "1"})
    assert (later, len(begun)) == (True, 5)


def test_between_two_pieces_of_quick_work_the_loop_turns():
    """What has arrived meanwhile is read, and told that it is too much, before the next piece is done."""
    seen = []

    async def play(line):
        loop = asyncio.get_running_loop()

        def work(number):
            seen.append(number)
            loop.call_soon(seen.append, f"after {number}")
            return number

        return await asyncio.gather(*(line.run(lambda n=number: work(n), quick=True) for number in range(3)))

    assert scene(play) == [0, 1, 2]
    assert seen.index("after 0") < seen.index(2)
    assert seen.index("after 1") < seen.index("after 2")


@pytest.mark.parametrize("quick", [True, False])
def test_a_fault_goes_to_whoever_waits_and_frees_the_place(quick):
    """Others are answered; a client that has gone takes nobody's place."""

    def fail():
        raise ZeroDivisionError

    async def play(line):
        said = await asyncio.gather(
            line.run(fail, quick=quick), line.run(lambda: 7, quick=quick), return_exceptions=True
        )
        gone = asyncio.create_task(line.run(lambda: 8, quick=quick))
        await asyncio.sleep(0)
        gone.cancel()
        after = await line.run(lambda: 9, quick=quick)
        assert line.count == 0
        return said, after

    (fault, seven), nine = scene(play)
    assert isinstance(fault, ZeroDivisionError)
    assert (seven, nine) == (7, 9)
