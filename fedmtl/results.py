"""The number of the results: which mathematics a run was made with."""

from __future__ import annotations

RESULTS = 3
"""Goes up whenever the same configuration and seed give other results than before, however little they differ.

It stands in checkpoints and summaries, where those without a number are of results 1. A checkpoint of another number is
not resumed, for a run shall be of one piece; a study runs its experiments of another number anew. What each number
changed is in the changelog.
"""
