"""What a worker imports before it trains."""

import subprocess
import sys

CODE = """
import sys
from pipelines.training.imports import UNUSED, lean_imports
with lean_imports():
    import ray.train.torch
    from pipelines.training import artefacts, checkpoint, rows, trainers, weights, zero
    import deepspeed, peft
print(sorted(UNUSED & set(sys.modules)), "trl" in sys.modules)
import gc, importlib.util
import mlflow, sklearn
print(gc.isenabled(), importlib.util.find_spec("boto3") is not None, bool(mlflow.__version__ and sklearn.__version__))
"""


def test_a_worker_imports_no_library_that_it_never_calls_and_can_still_do_so_later() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.splitlines()[-2:] == ["[] True", "True True True"]
