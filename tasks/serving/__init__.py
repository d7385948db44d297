"""The door: the HTTP process that answers with the champion. Imports no Prefect and no MLflow, and starts with both down.

Belongs here: requests, answers, the swap, and the rehearsal of a candidate. Open `app.py` first.
"""
