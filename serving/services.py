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
    retrieval: "Retrieval | None" = None
    """Similar posts for the prompt; None where no index is configured."""
    embedder: "Embedder | None" = None
    """What a revision's meaning is compared by; None = by words."""
    feedback: "FeedbackStore | None" = None
    """Where answers and what people thought of them are kept; None = nowhere."""
    metrics: "Metrics | None" = None
    """Counts and times; ``of`` takes this process' own; None = not counted."""

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
        """Services whose triage and guard are those of ``serving``; ``others`` are further fields.

        Revisions are compared by the embedder of ``retrieval`` unless another is given.
        """
        from serving.safety.guard import Guard
        from serving.safety.triage import Triage
        from serving.watching.metrics import metrics

        retrieval: Retrieval | None = others.get("retrieval")
        return cls(
            gm=gm,
            im=im,
            prompts=prompts or PromptSettings(),
            generation=generation or GenerationSettings(),
            serving=serving,
            triage=others.pop("triage", None) or Triage.of(serving.safety),
            guard=others.pop("guard", None) or Guard.of(serving.safety),
            **{"metrics": metrics(), "embedder": retrieval.embedder if retrieval else None, **others},
        )

    def model(self, name: str) -> "ModelLike":
        """``gm`` or ``im`` by name."""
        return {"gm": self.gm, "im": self.im}[name]
