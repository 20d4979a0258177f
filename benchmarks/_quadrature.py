"""Node tables shared by the baselines: panels between the thresholds of the map's integral."""

import math

import numpy as np


def finite_reach(count):
    """Where to cut the tanh-sinh rule: truncation and step balanced.

    Measured, in the outgoing momentum, for the Letter's qubit and random ones near it.
    """
    return 2.15 + 0.69 * math.log(count / 20)


def tail_range(count):
    """Where to cut x = exp(t - e^{-t}), measured likewise; beyond, nothing is left to add."""
    grow = math.log(count / 20)
    return max(-2.57 - 0.87 * grow, -3.8), min(2.76 + 0.78 * grow, 3.9)


def tanh_sinh(count, reach=None):
    """Double-exponential trapezoid on [0, 1], with the distances to both ends.

    The substitution is u = 1 / (1 + exp(-pi sinh t)), t in [-reach, reach]. Neither distance is
    formed by subtraction, so nodes that crowd at an end keep all their digits.

    Args:
        count: number of nodes.
        reach: largest |t|; None: `finite_reach(count)`.

    Returns:
        (u, 1 - u, weights), each of shape (count,).
    """
    reach = finite_reach(count) if reach is None else reach
    t, h = np.linspace(-reach, reach, count, retstep=True)
    u = 1.0 / (1.0 + np.exp(-np.pi * np.sinh(t)))
    v = 1.0 / (1.0 + np.exp(np.pi * np.sinh(t)))
    return u, v, h * np.pi * np.cosh(t) * u * v


def exp_tail(count, span=None):
    """Trapezoid on [0, oo) for integrands that decay as e^{-x}, with x = exp(t - e^{-t}).

    Args:
        count: number of nodes.
        span: first and last t; None: `tail_range(count)`.

    Returns:
        (x, weights), each of shape (count,).
    """
    lower, upper = tail_range(count) if span is None else span
    t, h = np.linspace(lower, upper, count, retstep=True)
    x = np.exp(t - np.exp(-t))
    return x, h * x * (1.0 + np.exp(-t))
