"""Runs on hardware: plan, ledger, submission and results."""
