"""What a circuit costs in time and energy, on a QPU and in simulation, and where the two cross."""
