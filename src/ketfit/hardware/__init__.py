"""Trained heads on a QPU: backends, runs with a write-ahead ledger, prices and training."""
