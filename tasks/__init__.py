"""The steps, in the order a batch walks them: ingest, prepare, tune, train, evaluate, gate, register, decide, deploy; and trigger, reproduce, prove.

Belongs here: Prefect tasks that fetch by reference, call `ml`, store, record. Steps do not import each other; `prove` walks those that judge. Open `ingest.py` first.
"""
