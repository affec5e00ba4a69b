"""The training loop and the calibration of probabilities."""
