"""Energy and entropy of collisions and of currents."""
