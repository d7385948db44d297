"""Memory: one small class over one engine each – lake (Delta), studies (Optuna), registry (MLflow), journal (SQL), bundles (disk).

Belongs here: reading and writing, and nothing that decides. Open `lake.py` first.
"""
