"""Time and energy of a circuit on a QPU and in simulation, and the number of qubits at which they cross."""
