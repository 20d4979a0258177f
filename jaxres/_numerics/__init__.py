"""Numerical building blocks without physics: small matrices, guarded functions, loops over arrays in one pass."""
