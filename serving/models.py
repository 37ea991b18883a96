"""The ingress' side of GM and IM: calls that end in an answer or in an ``ApiError``.

A replica that dies takes its requests with it. Nothing was sent to the client by then, so one
more replica is asked before the client hears of it: once, since a request that kills two replicas
would kill a third. Overload is told at once, as 503 with Retry-After: waiting here would only hide
it from the client and from autoscaling.

A model may be served in two versions while one is rolled out (``serving.routes``). Which of them a
request gets is decided by its id, so that all drafts of one request are the same version's.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, Protocol

from opentelemetry.trace import SpanKind
from ray.exceptions import ObjectLostError, RayActorError, WorkerCrashedError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RequestCancelledError
from ray.serve.handle import DeploymentHandle, DeploymentResponseGenerator

from configs.errors import EngineError
from pipelines.generation.engine import Messages, Piece, PromptTooLong, Sampling
from serving.routes import Route, choose, second_choice
from serving.watching.traces import carrier, span
from serving.wire import ContextExceeded, unanswered, unavailable

HEALTH_TIMEOUT_S = 5.0
"""Seconds that a model has to say it is there."""
REMEMBERED = 4096
"""Requests of which it is remembered that another version answered than their id chose."""

LOG = logging.getLogger("ray.serve")


class ReplicaLost(EngineError):
    """A replica ended a request that nobody cancelled."""


LOST = (RayActorError, WorkerCrashedError, ObjectLostError, RequestCancelledError, EngineError)
"""What a request meets whose replica, or the node under it, goes away."""


class ModelLike(Protocol):
    """What the API asks of GM or IM, wherever they run."""

    name: str
    """``gm`` or ``im``."""

    async def write(self, request_id: str, prompt: Messages, sampling: Sampling) -> Piece:
        """The whole answer; cancelling the call frees its place. Raises ApiError 400, 503 or 504."""

    def stream(self, request_id: str, prompt: Messages, sampling: Sampling) -> AsyncGenerator[Piece, None]:
        """The answer piece by piece, the last with its ``finish_reason``.

        Pull the first piece before a status is sent: all that can be refused (ApiError 400, 503,
        504) is refused there, and a replica that dies before it is replaced by another unseen. What
        fails later raises ApiError too, which then can only end the stream. Closing the generator
        (``aclose``) cancels the request.
        """

    async def health(self) -> str:
        """``ok``, ``on demand`` for one that sleeps until it is asked, or ``unavailable``; wakes nothing."""

    async def info(self, request_id: str | None = None) -> dict[str, Any]:
        """Lineage of the model that is served, or of the version that answers ``request_id``.

        ``version``, ``path``, ``manifest`` (hash of what made it, None where it has no manifest); wakes nothing.
        """


async def writer(model: ModelLike, request_id: str) -> tuple[str, str | None]:
    """The model, and which version of it answers the request."""
    return model.name, (await model.info(request_id)).get("version")


class Model:
    """One model in one or two versions, each a deployment that is called by its handle."""

    def __init__(self, name: str, *, timeout_s: float, on_demand: bool):
        self.name, self.timeout_s = name, timeout_s
        self.on_demand = on_demand
        """The deployment may stand at no replicas, and must not be woken to say it is well."""
        self.routes: Sequence[Route] = ()
        self._handles: dict[tuple[str, str], DeploymentHandle] = {}
        self._elsewhere: OrderedDict[str, Route] = OrderedDict()

    def route(self, routes: Sequence[Route]) -> None:
        """Send requests to these versions from now on; those in progress stay where they are."""
        self.routes = tuple(routes)

    async def write(self, request_id: str, prompt: Messages, sampling: Sampling) -> Piece:
        """See ``ModelLike.write``."""
        deadline = asyncio.get_running_loop().time() + self.timeout_s
        first, second = self._attempts(request_id)
        try:
            try:
                return await self._write(first, deadline, request_id, prompt, sampling)
            except (*LOST, DeploymentUnavailableError) as error:
                self._give_second_chance(request_id, first, second, error)
                return await self._write(second, deadline, request_id, prompt, sampling)
        except Exception as error:
            raise self._told(error) from None

    async def stream(self, request_id: str, prompt: Messages, sampling: Sampling) -> AsyncGenerator[Piece, None]:
        """See ``ModelLike.stream``."""
        with span(self.name, kind=SpanKind.CLIENT, current=False) as told:
            async with aclosing(self._streamed(request_id, prompt, sampling, carrier(told))) as pieces:
                async for piece in pieces:
                    yield piece

    async def _streamed(
        self, request_id: str, prompt: Messages, sampling: Sampling, carried: dict[str, str]
    ) -> AsyncGenerator[Piece, None]:
        deadline = asyncio.get_running_loop().time() + self.timeout_s
        first, second = self._attempts(request_id)
        pieces = self._stream(first, request_id, prompt, sampling, carried)
        ended = False
        try:
            try:
                piece = await following(pieces, deadline)
            except (*LOST, DeploymentUnavailableError) as error:
                self._give_second_chance(request_id, first, second, error)
                pieces = self._stream(second, request_id, prompt, sampling, carried)
                piece = await following(pieces, deadline)
            yield piece
            while piece.finish_reason is None:
                piece = await following(pieces, deadline)
                yield piece
            ended = True
        except Exception as error:
            raise self._told(error) from None
        finally:
            if not ended:
                pieces.cancel()

    async def health(self) -> str:
        """See ``ModelLike.health``; well where every version that gets requests is."""
        if self.on_demand:
            return "on demand"
        used = [route for route in self.routes if route.share > 0]
        found = await asyncio.gather(*(self._there(route) for route in used))
        return "ok" if used and all(found) else "unavailable"

    async def info(self, request_id: str | None = None) -> dict[str, Any]:
        """See ``ModelLike.info``; without a request, of the version that gets most of them."""
        if not self.routes:
            return {"version": None, "path": None, "manifest": None}
        if request_id is None:
            return dict(max(self.routes, key=lambda route: route.share).info)
        return dict((self._elsewhere.get(request_id) or choose(self.routes, request_id)).info)

    def _attempts(self, request_id: str) -> tuple[Route, Route]:
        if not self.routes:
            raise unavailable(f"{self.name} is not deployed yet", "unavailable")
        first = choose(self.routes, request_id)
        return first, second_choice(self.routes, first)

    def _give_second_chance(self, request_id: str, first: Route, second: Route, error: Exception) -> None:
        hopeless = isinstance(error, DeploymentUnavailableError) and second == first
        if isinstance(error, PromptTooLong) or hopeless:
            raise error
        # By type only: the error may quote what it choked on.
        LOG.warning("request %s: %s of %s: %s; asked again", request_id, first.app, self.name, type(error).__name__)
        if second != first:
            self._elsewhere[request_id] = second
            while len(self._elsewhere) > REMEMBERED:
                self._elsewhere.popitem(last=False)

    async def _write(
        self, route: Route, deadline: float, request_id: str, prompt: Messages, sampling: Sampling
    ) -> Piece:
        with span(self.name, kind=SpanKind.CLIENT, app=route.app):
            response = self._handle(route).write.remote(self.name, request_id, prompt, sampling, carrier())
            try:
                async with asyncio.timeout_at(deadline):
                    piece: Piece = await response
                    return piece
            except (asyncio.CancelledError, TimeoutError) as error:
                response.cancel()
                raise whose(error) from None

    def _stream(
        self, route: Route, request_id: str, prompt: Messages, sampling: Sampling, carried: dict[str, str]
    ) -> DeploymentResponseGenerator:
        handle = self._handle(route).options(stream=True)
        return handle.stream.remote(self.name, request_id, prompt, sampling, carried)

    def _handle(self, route: Route) -> DeploymentHandle:
        from ray import serve

        key = (route.app, route.deployment)
        if key not in self._handles:
            # Unchecked: the ingress may start before the models do.
            self._handles[key] = serve.get_deployment_handle(route.deployment, route.app, _check_exists=False)
        return self._handles[key]

    async def _there(self, route: Route) -> bool:
        response = self._handle(route).ready.remote(self.name)
        try:
            async with asyncio.timeout(HEALTH_TIMEOUT_S):
                await response
        except BackPressureError:
            return True  # it is there, and busy
        except (TimeoutError, asyncio.CancelledError) as error:
            response.cancel()
            if isinstance(whose(error), asyncio.CancelledError):
                raise
            return False
        except (*LOST, DeploymentUnavailableError):
            return False
        return True

    def _told(self, error: Exception) -> Exception:
        """The error as the client hears of it; one that is not known here stays what it is."""
        if isinstance(error, TimeoutError):
            return unanswered(f"{self.name} gave no answer within {self.timeout_s:g} s")
        if isinstance(error, BackPressureError):
            return unavailable(f"{self.name} has more requests than it can take", "overloaded")
        if isinstance(error, DeploymentUnavailableError):
            return unavailable(f"{self.name} could not be deployed", "unavailable")
        if isinstance(error, PromptTooLong):
            return ContextExceeded(self.name, *error.numbers)
        if isinstance(error, LOST):
            return unavailable(f"{self.name} failed on this request", "unavailable")
        return error


async def following(pieces: DeploymentResponseGenerator, deadline: float) -> Piece:
    """The next piece; raises TimeoutError once the event loop's clock passes ``deadline``."""
    try:
        async with asyncio.timeout_at(deadline):
            piece: Piece = await anext(pieces)
            return piece
    except StopAsyncIteration:
        raise ReplicaLost("the replica ended the answer without saying why") from None
    except asyncio.CancelledError as error:
        raise whose(error) from None


def whose(error: BaseException) -> BaseException:
    """A cancellation that nobody asked this task for comes from the replica: it was lost."""
    task = asyncio.current_task()
    if isinstance(error, asyncio.CancelledError) and task is not None and not task.cancelling():
        return ReplicaLost("the replica ended the request")
    return error
