"""One collision: amplitudes (Eq. 16) and the scattering map (Eq. 17)."""
