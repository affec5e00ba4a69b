"""Statistical analysis of the results of a study."""
