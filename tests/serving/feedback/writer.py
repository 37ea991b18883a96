"""A process that gives answers and rates them, to be run beside others or killed.

python -m tests.serving.feedback.writer URL KEY_FILE NAME COUNT      prints each id once its rating is kept
"""

import asyncio
import sys

from configs.store import StoreSettings
from serving.feedback.store import FeedbackStore
from tests.serving.feedback.giving import FIVE, given


async def write(store: FeedbackStore, name: str, count: int) -> None:
    """Answers with ratings, one after the other."""
    for number in range(count):
        request_id = f"{name}-{number}"
        await store.record(**given(request_id))
        await store.rate(request_id, "app", FIVE, index=number % 2)
        print(request_id, flush=True)  # noqa: T201


def main() -> None:
    """See above."""
    url, key_file, name, count = sys.argv[1:]
    settings = StoreSettings(url=url, keep_text=True, key_file=key_file, wait_s=10, timeout_s=30)
    store = FeedbackStore.of(settings.resolved("unused"))
    assert store is not None
    asyncio.run(write(store, name, int(count)))
    store.close()


if __name__ == "__main__":
    main()
