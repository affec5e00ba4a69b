"""Interfaces of other quantum libraries on KetFit's simulator."""
