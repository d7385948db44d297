"""The local stack: Prefect, MLflow, a worker, the serving process, the inbox and the recovery, under one supervisor.

Belongs here: starting, asking, stopping processes, and looking the machine over. Does not: what they do, nor printing; and nothing heavy is
imported at module level, because `keepfit status` must answer at once. Open `starting.py` first; `infra/supervisord.conf` lists the programs.
"""

from flows.stack.doctor import diagnose
from flows.stack.health import services
from flows.stack.probes import in_the_way
from flows.stack.starting import up
from flows.stack.stopping import down
from flows.stack.variables import connect, environment

__all__ = ["connect", "diagnose", "down", "environment", "in_the_way", "services", "up"]
