"""Settings of the Ray cluster, of jobs on it, and of evaluation."""

from pydantic import Field

from configs.base import Section


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
