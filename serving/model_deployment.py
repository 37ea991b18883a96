"""The deployments ``gm`` and ``im``: one engine in each replica.

Which engine is decided here and nowhere else: what serves a request only knows the protocol.
"""

from uuid import uuid4

from ray import serve

from configs.errors import EngineError
from configs.serving import EngineSettings, GenerationSettings
from pipelines.generation.engine import Engine, Messages, Piece, Sampling, complete

HEALTH_PERIOD_S = 2.0
"""Seconds between Serve's health checks; after three failures in a row a replica is replaced."""


@serve.deployment(health_check_period_s=HEALTH_PERIOD_S, logging_config={"enable_access_log": False})
class ModelDeployment:
    """Writes answers to prompts with one model; ready once its constructor has returned."""

    # Serve awaits a constructor that is a coroutine, which mypy does not know.
    async def __init__(  # type: ignore[misc]
        self, model: str, engine: EngineSettings, generation: GenerationSettings, gpu: bool
    ) -> None:
        from pipelines.generation.transformers_engine import TransformersEngine

        self.sampling = Sampling.of(generation)
        self.engine: Engine = TransformersEngine(model, None, engine, generation, gpu=gpu)
        await self.engine.start()

    async def write(self, request_id: str, prompt: Messages) -> Piece:
        """The whole answer; cancelled with the call. Raises PromptTooLong, EngineError."""
        # A client may use an id twice, an engine may not.
        return await complete(self.engine, f"{request_id}/{uuid4().hex[:8]}", prompt, self.sampling)

    async def ready(self) -> None:
        """Answers where a replica is there and can generate."""
        await self.check_health()

    async def check_health(self) -> None:
        """Raises EngineError where Serve should replace this replica."""
        if not self.engine.healthy():
            raise EngineError("the engine has ended; the replica must be replaced")
