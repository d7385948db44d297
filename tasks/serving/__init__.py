"""The door: the HTTP process that answers with the champion. Imports no Prefect and no MLflow, and starts with both down.

Belongs here: requests, answers, the swap, and the rehearsal of a candidate. Open `app.py` first: it lists the routes and starts the process; `crew`
starts several. `succession` follows the journal and says who answers, from what is `loaded`. `connections` cuts off who keeps one open for nothing.
A request passes `turnstile` and `guard`, then `predicting`: `bodies` and `protocols` read it, `line` says when its turn is, `champion` scores.
Rows that stand by column, in a `sheet`, come from `arrow` or are many numbers. `answers`, `protocols`, `writing`, `metrics` (in `counters` of
several processes) and `openapi` say what goes out.
`beside` is what goes on next to that in a rollout: `others` loads the other model, `canary` lets it answer a share, `shadow` scores afterwards.
"""
