"""Numbers for Prometheus: requests, how long each stage took, sizes of batches, queues, clients gone, restarts."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
STAGES = ("decode", "queue", "compute")


class Metrics:
    """Of one service; `model` is empty for requests that name none."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        names = {"namespace": "hybridvit", "registry": self._registry}
        self.requests = Counter("requests", "Requests that ended.", ("model", "code"), **names)
        self.request_seconds = Histogram(
            "request_seconds", "From a request's header to the end of its answer.", ("model",), buckets=SECONDS, **names
        )
        self.stage_seconds = Histogram("stage_seconds", "Parts of it.", ("stage",), buckets=SECONDS, **names)
        self.batch_size = Histogram("batch_size", "Pictures computed at once.", buckets=BATCHES, **names)
        self.queue_length = Gauge("queue_length", "Pictures that wait.", ("model",), **names)
        self.cancelled = Counter("cancelled", "Requests whose client did not wait for the answer.", **names)
        self.worker_restarts = Counter("worker_restarts", "Processes of models that were started again.", **names)
        self.not_finite = Counter("not_finite", "Answers with numbers that were not finite.", **names)

    def stages(self, **ms: float) -> None:
        """Milliseconds by stage."""
        for stage, value in ms.items():
            self.stage_seconds.labels(stage).observe(value / 1e3)

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self._registry)
