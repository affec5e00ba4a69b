"""Torch modules and their configuration."""
