"""A scope around each call of a function, of whichever sort.

A generator's body runs in its scope, and who iterates over it does not."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator
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
    elif inspect.iscoroutinefunction(function):

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


def _generator(
    fresh: Callable[[], ExecutionScope], call: Callable[..., Any]
) -> Callable[..., Generator[Any, Any, Any]]:
    def generate(*args: object, **kwargs: object) -> Generator[Any, Any, Any]:
        scope, outside = fresh(), current.scope.get()
        try:
            with scope:
                steps = cast("Generator[Any, Any, Any]", call(*args, **kwargs))
                step: Callable[[], Any] = functools.partial(next, steps)
                try:
                    while True:
                        try:
                            value = step()
                        except StopIteration as stop:
                            return stop.value
                        current.scope.set(outside)
                        try:
                            sent = yield value
                        except GeneratorExit:
                            raise
                        except BaseException as error:
                            step = functools.partial(steps.throw, error)
                        else:
                            step = functools.partial(steps.send, sent)
                        finally:
                            outside = current.scope.get()
                            current.scope.set(scope)
                finally:
                    steps.close()
        finally:
            current.scope.set(outside)

    return generate


def _async_generator(
    fresh: Callable[[], ExecutionScope], call: Callable[..., Any]
) -> Callable[..., AsyncGenerator[Any, Any]]:
    async def generate(*args: object, **kwargs: object) -> AsyncGenerator[Any, Any]:
        scope, outside = fresh(), current.scope.get()
        try:
            async with scope:
                steps = cast("AsyncGenerator[Any, Any]", call(*args, **kwargs))
                try:
                    waited: Any = anext(steps)
                    while True:
                        try:
                            value = await waited
                        except StopAsyncIteration:
                            return
                        current.scope.set(outside)
                        try:
                            sent = yield value
                        except GeneratorExit:
                            raise
                        except BaseException as error:
                            waited = steps.athrow(error)
                        else:
                            waited = steps.asend(sent)
                        finally:
                            outside = current.scope.get()
                            current.scope.set(scope)
                finally:
                    await steps.aclose()
        finally:
            current.scope.set(outside)

    return generate
