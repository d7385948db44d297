"""Ctrl-C: what a command says when somebody stops it, and what goes on."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Stack
from tests.flows.test_loop import runs
from tests.samples import until

ASKED = """
import flows.standing
def stop(_settings):
    raise KeyboardInterrupt
flows.standing.standing = stop
from flows.__main__ import main
main()
"""
BEING_READ = """
import sys
class Stop:
    def find_spec(self, name, *_):
        if name == "cyclopts":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Stop())
from flows.__main__ import main
main()
"""


@pytest.mark.parametrize(
    ("code", "said"), [(ASKED, "what was landed or released stands"), (BEING_READ, "nothing was begun")]
)
def test_a_stop_by_hand_is_said_with_exit_code_130(tmp_path, code, said):
    """One sentence on stderr, and with --json one object, whether the command was at work or still being read."""
    environment = os.environ | {"KEEPFIT_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code, "status", "--json"], capture_output=True, text=True, env=environment, timeout=120, check=False
    )  # fmt: skip
    assert done.returncode == 130
    assert said in json.loads(done.stdout)["error"]
    assert done.stderr.strip() == json.loads(done.stdout)["error"]


@pytest.mark.stack
def test_who_stops_waiting_is_told_that_the_run_goes_on(stack: Stack):
    """The run's name, where to see what comes of it, and where it is cancelled; it does go on."""
    # What is ignored here, as by what a shell has put into the background, a child would ignore, too.
    heard = signal.signal(signal.SIGINT, signal.default_int_handler)
    before = {run.id for run in runs(stack, "watch/thyroid")}
    command = [Path(sys.executable).with_name("keepfit"), "watch", "thyroid", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        signal.signal(signal.SIGINT, heard)
        process.stderr.readline()
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "goes on in the stack: `keepfit status` shows" in json.loads(out)["error"]
    until(
        lambda: any(run.id not in before and run.state.is_completed() for run in runs(stack, "watch/thyroid")),
        what="the run's end",
    )
