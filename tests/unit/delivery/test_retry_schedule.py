from random import Random

from hypothesis import given
from hypothesis import strategies as st

from node.delivery.retry_schedule import wait_s


@given(attempts=st.integers(1, 10_000), seed=st.integers())
def test_wait_lies_between_half_and_the_whole_of_the_doubled_wait(attempts: int, seed: int) -> None:
    longest = min(900.0, 5.0 * 2.0 ** min(attempts - 1, 32))
    wait = wait_s(attempts, first_s=5.0, most_s=900.0, random=Random(seed))
    assert longest / 2 <= wait <= longest


def test_same_random_state_gives_the_same_wait() -> None:
    waits = [wait_s(3, first_s=5, most_s=900, random=Random(7)) for _ in range(2)]
    assert waits[0] == waits[1]


def test_jitter_spreads_sets_that_failed_together() -> None:
    random = Random(1)
    waits = {round(wait_s(10, first_s=5, most_s=900, random=random)) for _ in range(100)}
    assert len(waits) > 80
