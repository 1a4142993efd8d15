"""When to try again: doubling waits with jitter, so that many sets do not knock at one recovering peer together."""

from random import Random


def wait_s(attempts: int, *, first_s: float, most_s: float, random: Random) -> float:
    """Return the seconds to wait after the given number of failed attempts.

    The wait doubles from `first_s` to at most `most_s`; jitter takes away up to half of it.

    Args:
        attempts: failed attempts so far, at least 1.
        first_s: longest wait after the first failed attempt.
        most_s: longest wait of all.
        random: source of the jitter; the same source state gives the same wait.
    """
    doublings = min(max(attempts, 1) - 1, 32)
    longest = min(most_s, first_s * float(1 << doublings))
    return longest * (1.0 - 0.5 * random.random())
