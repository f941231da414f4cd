"""Numbers for Prometheus: requests, how long each stage took, sizes of batches, queues, clients gone, restarts."""

from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
STAGES = ("decode", "queue", "compute")


class Metrics:
    """Of one service; `model` is empty for requests that name none."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        counter = partial(Counter, namespace="hybridvit", registry=self._registry)
        gauge = partial(Gauge, namespace="hybridvit", registry=self._registry)
        histogram = partial(Histogram, namespace="hybridvit", registry=self._registry)
        self.requests = counter("requests", "Requests that ended.", ("model", "code"))
        self.request_seconds = histogram(
            "request_seconds", "From a request's header to the end of its answer.", ("model",), buckets=SECONDS
        )
        self.stage_seconds = histogram("stage_seconds", "Parts of it.", ("stage",), buckets=SECONDS)
        self.batch_size = histogram("batch_size", "Pictures computed at once.", buckets=BATCHES)
        self.queue_length = gauge("queue_length", "Pictures that wait.", ("model",))
        self.cancelled = counter("cancelled", "Requests whose client did not wait for the answer.")
        self.worker_restarts = counter("worker_restarts", "Processes of models that were started again.")
        self.not_finite = counter("not_finite", "Answers with numbers that were not finite.")

    def stages(self, **ms: float) -> None:
        """Milliseconds by stage."""
        for stage, value in ms.items():
            self.stage_seconds.labels(stage).observe(value / 1e3)

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self._registry)
