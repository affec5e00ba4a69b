"""Trained heads on a QPU: one seam to any backend, a ledger that loses no job, and what a run will cost."""
