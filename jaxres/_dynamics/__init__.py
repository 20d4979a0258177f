"""The dynamics of many collisions: steady states, evolution, trajectories and cycles (Eqs. 3 to 9)."""
