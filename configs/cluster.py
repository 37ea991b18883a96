"""Settings of the Ray cluster, of its pools of nodes, of jobs on it, and of evaluation."""

from typing import Literal

from pydantic import Field, field_validator

from configs.base import Section

Pool = Literal["data", "training", "serving"]
RESERVED = "ray-subcluster"


class PoolSettings(Section):
    """Which nodes do what, told apart by the value of one node label; a pool without a value takes any node."""

    label: str = Field("llumi/pool", min_length=1)
    """Name of the label, as in ``ray start --labels llumi/pool=train`` and in KubeRay's ``labels`` of a group."""
    data: str | None = None
    """Label's value on nodes for reading, cleaning, pairs, tokens, merging and what else asks for no GPU."""
    training: str | None = None
    """Label's value on nodes for training, and for what scores or writes text as one of its workers would."""
    serving: str | None = None
    """Label's value on nodes for the replicas of GM, IM and ingress."""

    @field_validator("label")
    @classmethod
    def ours(cls, value: str) -> str:
        """Ray Data keeps its own accounts by ``ray-subcluster``, and Ray Train then sees none of those nodes."""
        if value == RESERVED:
            raise ValueError(f"{RESERVED} is Ray's own; take another label")
        return value

    @field_validator("data", "training", "serving")
    @classmethod
    def plain(cls, value: str | None) -> str | None:
        """One value, none of Ray's expressions such as ``in(a, b)``, which needs could not be counted by."""
        if value is not None and not all(c.isalnum() or c in "-_." for c in value):
            raise ValueError("a label's value is made of letters, digits, - _ and .")
        return value or None

    def selector(self, pool: Pool) -> dict[str, str]:
        """The labels that a node of the pool has; none where any node will do."""
        value = getattr(self, pool)
        return {} if value is None else {self.label: value}


class ClusterSettings(Section):
    """Where the stages run."""

    address: str | None = None
    """Ray address (``auto``, ``host:6379``); none starts Ray on this machine, or joins the job's cluster."""
    cpus: int | None = Field(None, ge=1)
    """CPUs of a Ray that is started here; none = those of the machine."""
    object_store_gb: float = Field(0.5, gt=0)
    """Object store of a Ray that is started here, in GB."""
    dashboard: bool = False
    """Start the dashboard with a Ray that is started here."""
    autoscaling: bool = False
    """The cluster adds nodes on demand: what today's nodes cannot hold is not refused for their number."""
    pools: PoolSettings = PoolSettings()
    """Which nodes data, training and serving run on."""
    jobs_address: str = "http://127.0.0.1:8265"
    """Dashboard address that ``llumi submit`` sends jobs to."""
    max_upload_mb: float = Field(100, gt=0)
    """Largest working directory uploaded with a job, in MB; Ray refuses more than 100."""


class EvaluationSettings(Section):
    """Held-out figures and the report."""

    posts: int = Field(100, ge=2)
    """Test posts for which each stage writes a draft."""
    max_pairs: int = Field(1000, ge=2)
    """Most test pairs scored a model and stage."""
    resamples: int = Field(2000, ge=100)
    """Bootstrap resamples."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    """Confidence level of every interval."""
    examples: int = Field(8, ge=0)
    """Example drafts shown side by side in the report."""
    batch_size: int = Field(16, ge=1)
    """Sequences scored at once."""
    actors: int = Field(2, ge=1)
    """Most actors that score; each asks for the CPUs and GPUs of one training worker."""
