"""What the user says: `project.yaml` (what), `KEEPFIT_*` (where), hooks (logic of one project), errors (how we answer).

Belongs here: reading and assembling. Does not: a part's own config class, which lives beside the code that obeys it. Open `project.py` first.
"""
