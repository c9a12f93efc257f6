"""A scope around each call of a function, of whichever sort.

A generator's body runs in its scope, and who iterates over it does not."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing, closing, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar, cast

from . import current

if TYPE_CHECKING:
    from .scope import ExecutionScope

F = TypeVar("F", bound=Callable[..., object])


def decorated(fresh: Callable[[], ExecutionScope], function: F) -> F:
    """The function, each call of which is in a scope of its own."""
    made: object
    call = cast("Callable[..., Any]", function)
    if inspect.isasyncgenfunction(function):
        made = _async_generator(fresh, call)
    elif inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # of an object  # noqa: B004
    ):

        async def run_async(*args: object, **kwargs: object) -> object:
            async with fresh():
                return await call(*args, **kwargs)

        made = run_async
    elif inspect.isgeneratorfunction(function):
        made = _generator(fresh, call)
    else:

        def run(*args: object, **kwargs: object) -> object:
            with fresh():
                return call(*args, **kwargs)

        made = run
    return cast(F, functools.update_wrapper(cast(Any, made), function))


class _Turns:
    """Whose turn it is: that of a generator's body, which is in its scope, or of who iterates over it."""

    def __init__(self, scope: ExecutionScope) -> None:
        self._scope, self._outside = scope, current.scope.get()

    @contextmanager
    def readers(self) -> Generator[None, None, None]:
        """The reader's, until it asks for more."""
        current.scope.set(self._outside)
        try:
            yield
        finally:
            self._outside = current.scope.get()
            current.scope.set(self._scope)

    def over(self) -> None:
        """The reader's from now on."""
        current.scope.set(self._outside)


def _generator(
    fresh: Callable[[], ExecutionScope], call: Callable[..., Any]
) -> Callable[..., Generator[Any, Any, Any]]:
    def generate(*args: object, **kwargs: object) -> Generator[Any, Any, Any]:
        turns = _Turns(scope := fresh())
        try:
            with scope, closing(call(*args, **kwargs)) as steps:
                step: Callable[[], Any] = functools.partial(next, steps)
                while True:
                    try:
                        value = step()
                    except StopIteration as stop:
                        return stop.value
                    try:
                        with turns.readers():
                            sent = yield value
                    except GeneratorExit:
                        raise
                    except BaseException as error:
                        step = functools.partial(steps.throw, error)
                    else:
                        step = functools.partial(steps.send, sent)
        finally:
            turns.over()

    return generate


def _async_generator(
    fresh: Callable[[], ExecutionScope], call: Callable[..., Any]
) -> Callable[..., AsyncGenerator[Any, Any]]:
    async def generate(*args: object, **kwargs: object) -> AsyncGenerator[Any, Any]:
        turns = _Turns(scope := fresh())
        try:
            async with scope, aclosing(call(*args, **kwargs)) as steps:
                waited: Any = anext(steps)
                while True:
                    try:
                        value = await waited
                    except StopAsyncIteration:
                        return
                    try:
                        with turns.readers():
                            sent = yield value
                    except GeneratorExit:
                        raise
                    except BaseException as error:
                        waited = steps.athrow(error)
                    else:
                        waited = steps.asend(sent)
        finally:
            turns.over()

    return generate
