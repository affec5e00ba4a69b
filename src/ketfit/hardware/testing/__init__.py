"""Tools to test backends."""
