"""The ingress' side of GM and IM: calls that end in an answer or in an ``ApiError``.

A replica that dies takes its requests with it. Nothing was sent to the client by then, so one
more replica is asked before the client hears of it. Overload is told at once, as 503 with
Retry-After: waiting here would only hide it from the client and from autoscaling.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator
from typing import Any, Protocol

from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from configs.errors import EngineError
from pipelines.generation.engine import Messages, Piece, PromptTooLong, Sampling
from serving.wire import ApiError

ATTEMPTS = 2
"""Times that a request is given to a replica."""
RETRY_AFTER_S = 1
"""Seconds that a refused client is asked to wait."""
HEALTH_TIMEOUT_S = 5.0
"""Seconds that a model has to say it is there."""

LOG = logging.getLogger("ray.serve")


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

    async def info(self) -> dict[str, Any]:
        """Lineage of the model that is served: ``version``, ``path``, ``manifest`` (its hash); wakes nothing."""


class Model:
    """One deployment, called by its handle."""

    def __init__(self, name: str, handle: DeploymentHandle, *, fields: str, timeout_s: float, on_demand: bool):
        self.name, self.handle, self.timeout_s = name, handle, timeout_s
        self.fields = fields
        """Fields of the body that make up the prompt."""
        self.on_demand = on_demand
        """The deployment may stand at no replicas, and must not be woken to say it is well."""

    async def write(self, request_id: str, prompt: Messages) -> Piece:
        """The model's answer; raises ApiError. A cancelled call frees its place in the engine."""
        try:
            async with asyncio.timeout(self.timeout_s):
                return await self._retried(request_id, prompt)
        except TimeoutError:
            raise unanswered(f"{self.name} gave no answer within {self.timeout_s:g} s") from None
        except BackPressureError:
            raise unavailable(f"{self.name} has more requests than it can take", "overloaded") from None
        except DeploymentUnavailableError:
            raise unavailable(f"{self.name} could not be deployed", "unavailable") from None
        except PromptTooLong as error:
            tokens, new, limit = error.numbers
            message = f"the text makes a prompt of {tokens} tokens, {self.name} takes at most {limit - new}"
            raise ApiError(400, message, code="context_length_exceeded", param=self.fields) from None
        except (RayActorError, EngineError):
            raise unavailable(f"{self.name} failed on this request", "unavailable") from None

    async def _retried(self, request_id: str, prompt: Messages) -> Piece:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await self._call("write", request_id, prompt)
            except PromptTooLong:
                raise
            except (RayActorError, EngineError) as error:
                LOG.warning("request %s: attempt %d at %s: %s", request_id, attempt, self.name, type(error).__name__)
                if attempt == ATTEMPTS:
                    raise
        raise AssertionError

    async def _call(self, method: str, *args: Any) -> Any:
        response = getattr(self.handle, method).remote(*args)
        try:
            return await response
        except asyncio.CancelledError:
            response.cancel()
            raise

    async def health(self) -> str:
        """``ok``, ``on demand`` for one that sleeps until it is asked, or ``unavailable``."""
        if self.on_demand:
            return "on demand"
        try:
            async with asyncio.timeout(HEALTH_TIMEOUT_S):
                await self._call("ready")
        except BackPressureError:
            return "ok"  # it is there, and busy
        except (TimeoutError, RayActorError, EngineError, DeploymentUnavailableError):
            return "unavailable"
        return "ok"


def unavailable(message: str, code: str) -> ApiError:
    """The client may try again soon."""
    return ApiError(503, message, code=code, kind="server_error", headers={"Retry-After": str(RETRY_AFTER_S)})


def unanswered(message: str) -> ApiError:
    """The request was given up."""
    return ApiError(504, message, code="timeout", kind="server_error")
