"""What runs: one Prefect flow a file, its body a table of contents; plus the declared deployments, the local stack, the command.

Belongs here: order and names of steps. Does not: work (that is `tasks`), thinking (`tasks.ml`). Open `train.py` first. The command starts in `cli.py`
and parses and prints in `commands/`; `stack/` is the local stack's processes.
"""
