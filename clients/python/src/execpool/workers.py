"""Threads that ask the sidecar for those who must not block: an event loop's tasks.

They are none of the loop's default executor's, which an app's own waiting may fill."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")

THREADS = 32


class Workers:
    """A pool of threads that is made when it is needed, and anew in a forked child."""

    def __init__(self) -> None:
        self.after_fork()

    def after_fork(self) -> None:
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    def run(self, act: Callable[[], T]) -> Future[T]:
        """Runs it in a thread; in this one where none can be started, as the interpreter is about to
        end or the container has as many as it may."""
        done: Future[T] = Future()
        claim = threading.Lock()

        def once() -> None:
            # A pool that could not start a thread has queued it all the same.
            if not claim.acquire(blocking=False) or not done.set_running_or_notify_cancel():
                return
            try:
                done.set_result(act())
            except BaseException as error:
                done.set_exception(error)

        try:
            with self._lock:
                if self._pool is None:
                    self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="execpool")
                pool = self._pool
            pool.submit(once)
        except RuntimeError:
            once()
        return done


workers = Workers()
os.register_at_fork(after_in_child=workers.after_fork)


def in_loop() -> bool:
    """Whether an event loop of asyncio's runs in this thread, which must not be blocked."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def within(seconds: float, work: Coroutine[Any, Any, object]) -> None:
    """Waits until it is done; raises TimeoutError where it is not by then. A cancellation is never lost, as
    one is that `asyncio.wait_for` of Python 3.10 and 3.11 gets as the work is done."""
    if sys.version_info >= (3, 11) and asyncio.current_task() is not None:
        # In this task: what was opened in it may ask for that.
        async with asyncio.timeout(seconds):
            await work
        return
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait([task], timeout=seconds)
    finally:
        task.cancel()
    if not done:
        raise TimeoutError
    task.result()


async def finish(running: Future[T]) -> tuple[T, BaseException | None]:
    """Waits until it has run, whatever happens to this task meanwhile: answers its result, and the
    cancellation that came in between, for the caller to raise. Where it fails, that cancellation is raised
    from here, as the task has to end all the same; its cause tells what has failed."""
    waited = asyncio.wrap_future(running)
    cancelled: BaseException | None = None
    while not waited.done():
        try:
            await asyncio.wait([waited])
        except asyncio.CancelledError as error:
            cancelled = error
    failed = waited.exception()
    if cancelled is not None and failed is not None:
        raise cancelled from failed
    return waited.result(), cancelled
