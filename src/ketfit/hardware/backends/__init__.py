"""Backends: simulators and providers of QPUs behind one interface."""
