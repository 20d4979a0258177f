"""Numerical building blocks that know nothing of physics: small matrices, guarded functions, one-pass loops."""
