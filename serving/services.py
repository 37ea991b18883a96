"""Everything that the application needs, put together once: ``api.create`` takes it and nothing else.

What needs Ray (handles of the models, counters shared by all ingress replicas) is passed in, so
that the same application runs behind Serve and, in tests, on a plain ASGI server.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from configs.serving import GenerationSettings, ServingSettings
from configs.settings import PromptSettings

if TYPE_CHECKING:
    from pipelines.retrieval.embed import Embedder
    from serving.feedback.store import FeedbackStore
    from serving.models import ModelLike
    from serving.retrieval import Retrieval
    from serving.safety.guard import Guard
    from serving.safety.triage import Triage
    from serving.watching.metrics import Metrics


@dataclass(frozen=True)
class Services:
    """What one replica of the ingress works with."""

    gm: "ModelLike"
    """Writes drafts."""
    im: "ModelLike"
    """Writes revisions."""
    prompts: PromptSettings
    """Templates, those that the models were trained with."""
    generation: GenerationSettings
    """Sampling where a request does not say otherwise."""
    serving: ServingSettings
    """Limits and what is switched on."""
    triage: "Triage"
    """Looks at a post before anything is written."""
    guard: "Guard"
    """Looks at what was written before anybody sees it."""
    metrics: "Metrics"
    """Counts and times."""
    retrieval: "Retrieval | None" = None
    """Similar posts for the prompt; None where no index is configured."""
    feedback: "FeedbackStore | None" = None
    """Where answers and what people thought of them are kept; None = nowhere."""

    @classmethod
    def of(
        cls,
        gm: "ModelLike",
        im: "ModelLike",
        *,
        serving: ServingSettings,
        generation: GenerationSettings | None = None,
        prompts: PromptSettings | None = None,
        **others: Any,
    ) -> Self:
        """Services whose triage and guard are those of ``serving``, counted by this process' metrics.

        ``others`` are further fields.
        """
        from serving.safety.guard import Guard
        from serving.safety.triage import Triage
        from serving.watching.metrics import metrics

        return cls(
            gm=gm,
            im=im,
            prompts=prompts or PromptSettings(),
            generation=generation or GenerationSettings(),
            serving=serving,
            triage=Triage.of(serving.safety),
            guard=Guard.of(serving.safety),
            **{"metrics": metrics(), **others},
        )

    @property
    def embedder(self) -> "Embedder | None":
        """What a revision's meaning is compared by; None = by words."""
        return self.retrieval.embedder if self.retrieval else None

    def model(self, name: str) -> "ModelLike":
        """``gm`` or ``im`` by name."""
        return {"gm": self.gm, "im": self.im}[name]
