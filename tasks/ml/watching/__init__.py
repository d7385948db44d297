"""Watching, pure: what was served against what was learned and what came true; alarms inside a budget of false ones.

Three things are kept apart: drift (inputs and predictions moved), performance (what came true, and what is expected to), anomalies (of data and service).

Anomalies: `anomalies.find(History(...), now, plan)`; what batches hold (`contents.py`), how many come and when (`volumes.py`), how they are answered (`service.py`).

Drift, in the order in which it is called (`findings.py` first):
    fixed = Sketch.of(rows, said, types)                       # at training; JSON, kept with the model
    history = daily(fixed, rows, at, said)                     # a sketch a day: of those rows, and of what was answered since
    thresholds = calibrated(fixed, history, plan, samples)     # JSON; samples: a frame of some rows for each past window; `calibrated_apart` where others judged it
    known = Known(fixed, thresholds, rolling=merged(windows), rows=some_rows, performance=Performance(...))
    findings = examine(known, rows, said, plan)                # of one version
    findings.verdict, findings.drift, findings.alarms, findings.sketch
    standing = Standing.after(standing, findings.alarms, until, now, plan)   # JSON; between judgements, and until an alarm's window has passed
"""
