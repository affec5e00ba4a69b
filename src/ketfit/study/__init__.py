"""Studies: plans, runs, statistics and reports."""
