"""Data, bodies, training and estimators."""
