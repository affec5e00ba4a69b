"""Data sets: readers, checks, splits and tables."""
