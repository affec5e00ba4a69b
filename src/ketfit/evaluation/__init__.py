"""Metrics, comparisons and predictions of whole files."""
