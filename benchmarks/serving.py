"""What the service costs and how it reacts. Each part by itself: ``python -m benchmarks serving.soak``.

- *overhead* (``serving_overhead``): CPU of a request behind Serve and HAProxy, against uvicorn alone.
- *scaling* (``serving_scaling``): from one replica to three under a step of load; time to the first text.
- *cold_start* (``serving_scaling``): the first answer of a model that had no replica.
- *soak* (``serving_soak``): ten minutes at 80 % of capacity, a replica killed each minute.
"""

from functools import partial

from benchmarks import serving_overhead, serving_scaling, serving_soak
from benchmarks.serving_setup import apart

PARTS = {
    "overhead": serving_overhead.run,
    "scaling": partial(apart, serving_scaling.scaling),
    "cold_start": partial(apart, serving_scaling.cold_start),
    "soak": partial(apart, serving_soak.soak),
}
