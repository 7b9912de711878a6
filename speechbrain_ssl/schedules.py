"""Values that depend on the optimiser step; stateless, so resume is exact."""

import math
from typing import Union


class Linear:
    """Straight line from `start` to `end`, constant afterwards.

    Arguments
    ---------
    start, end : float
        First and last value.
    steps : int
        Steps of the line; 0 gives `end` at once.

    Example
    -------
    >>> Linear(0.0, 1.0, 10)(5)
    0.5
    """

    def __init__(self, start: float, end: float, steps: int):
        self.start, self.end, self.steps = start, end, steps

    def __call__(self, step: int) -> float:
        """Value at a step, counted from 0."""
        share = min(1.0, step / self.steps) if self.steps > 0 else 1.0
        return self.start + (self.end - self.start) * share


class Cosine:
    """Half a cosine from `start` to `end`, constant afterwards.

    Arguments
    ---------
    start, end : float
        First and last value.
    steps : int
        Steps of the whole schedule, warm-up included.
    warmup : int
        Steps of a linear rise from 0 to `start` at the beginning.

    Example
    -------
    >>> rate = Cosine(1.0, 0.0, steps=100, warmup=10)
    >>> rate(0), rate(10), round(rate(55), 3), rate(100)
    (0.0, 1.0, 0.5, 0.0)
    """

    def __init__(self, start: float, end: float, steps: int, warmup: int = 0):
        self.start, self.end = start, end
        self.steps, self.warmup = steps, warmup

    def __call__(self, step: int) -> float:
        """Value at a step, counted from 0."""
        if step < self.warmup:
            return self.start * step / self.warmup
        span = max(1, self.steps - self.warmup)
        share = min(1.0, (step - self.warmup) / span)
        fall = (1 + math.cos(math.pi * share)) / 2
        return self.end + (self.start - self.end) * fall


class Exponential:
    """`start`, multiplied by `factor` after every `every` steps.

    Arguments
    ---------
    start : float
        First value.
    factor : float
        Below 1 to fall.
    every : int
        Steps between two changes, e.g. those of an epoch.

    Example
    -------
    >>> rate = Exponential(1.0, 0.5, every=10)
    >>> rate(0), rate(9), rate(10), rate(25)
    (1.0, 1.0, 0.5, 0.25)
    """

    def __init__(self, start: float, factor: float, every: int):
        self.start, self.factor, self.every = start, factor, every

    def __call__(self, step: int) -> float:
        """Value at a step, counted from 0."""
        return self.start * self.factor ** (step // self.every)


Scheduled = Union[float, Linear, Cosine, Exponential]


def value_at(scheduled: Scheduled, step: int) -> float:
    """A number as it is, a schedule at the step.

    Example
    -------
    >>> value_at(0.1, 7), value_at(Linear(0.0, 1.0, 10), 1)
    (0.1, 0.1)
    """
    return scheduled(step) if callable(scheduled) else float(scheduled)
