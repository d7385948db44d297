"""scratch."""
def contract_table(contract, observed): return contract.describe()
def progress(trials, budget_seconds, elapsed, total): return f"{len(trials)} trials"
def decision(state, reason, verdicts): return f"# {state}\n{reason}"
