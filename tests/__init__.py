"""The proofs: rooms as in `tasks` and `flows`, and `benchmarks`, which measures and asserts no times. Open `conftest.py` first: the one stack of a session.

What several rooms build on stands beside it: rows and projects in `samples`, servers in `stage`, `postgres`, `object_store`, `receiver`.
"""

import os

# Before scikit-learn is imported, and for whatever is started: beside a stack on the same cores, threads of OpenMP wait for each other busily, and a
# fit of a second takes a minute. A test of several threads says how many itself.
os.environ.setdefault("OMP_NUM_THREADS", "1")
