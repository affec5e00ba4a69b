"""Drawings of circuits as text, figure and SVG."""
