"""Generators that run in tasks of their own, from their first step to their last, whoever takes what they yield."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TypeVar

from serving.wire import unavailable

Item = TypeVar("Item")


async def merged(
    streams: Sequence[AsyncGenerator[Item, None]], ahead: int | None = None
) -> AsyncGenerator[tuple[int, Item], None]:
    """What the generators yield, as it comes, with the number of the one that it came from.

    At most ``ahead`` items, one a generator unless told otherwise, wait to be taken. The first
    generator that fails ends all; so does closing this one.
    """
    queue: asyncio.Queue[tuple[int, Item | Exception | None]] = asyncio.Queue(ahead or len(streams))
    closing = False

    async def run(number: int, stream: AsyncGenerator[Item, None]) -> None:
        end: Exception | None = None
        try:
            async with aclosing(stream):
                async for item in stream:
                    await queue.put((number, item))
        except asyncio.CancelledError:
            if closing:
                raise
            end = unavailable("the request was cancelled from within", "unavailable")  # or its reader would wait
        except Exception as error:
            end = error
        await queue.put((number, end))

    tasks = [asyncio.create_task(run(number, stream)) for number, stream in enumerate(streams)]
    try:
        running = len(tasks)
        while running:
            number, item = await queue.get()
            if isinstance(item, Exception):
                raise item
            if item is None:
                running -= 1
            else:
                yield number, item
    finally:
        closing = True
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
