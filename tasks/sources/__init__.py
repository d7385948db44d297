"""Where batches come from: objects listed at a URL, rows of a SQL query, files that are uploaded; each becomes a file in the inbox.

Belongs here: reading the world outside, and a mark of how far; what a project has scored by the clock (`scores.py`). Does not: landing, the
journal. Open `source.py` first; it says how to add one.
"""
