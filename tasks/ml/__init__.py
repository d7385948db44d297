"""Knowledge: frozen values with a verb and pure functions over frames and arrays.

No file, network, clock, Prefect or MLflow in here; time and seed come in as parameters. Open `contract.py` first.
"""
