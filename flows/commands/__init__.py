"""The commands of `keepfit`: parsing and printing only, a file for each thing that a person is after.

Belongs here: parameters, help, tables, exit codes. Does not: work, which is `flows`, `tasks` or `flows.stack`; and nothing heavy is imported at
module level, because help must come at once. Open `flows/cli.py` first, which lists them in groups; then `loop.py`.
"""
