"""Each device computes a tiny model forward and backward: what a driver or a build cannot do shows here."""

from dataclasses import asdict, dataclass

import torch

from hybridvit.build import build


@dataclass(frozen=True, kw_only=True)
class DeviceState:
    """One device, and whether it trains."""

    name: str  # cpu, cuda:0, mps
    description: str
    memory: int | None = None  # bytes; None where the device shares the machine's
    memory_free: int | None = None
    bfloat16: bool
    problem: str = ""  # why it cannot train; empty if it can

    def to_dict(self) -> dict[str, object]:
        """Plain types for JSON."""
        return asdict(self)


def device_states() -> list[DeviceState]:
    """All devices of this machine that torch knows, the CPU first."""
    states = [DeviceState(name="cpu", description="CPU", bfloat16=True, problem=_problem_of("cpu"))]
    if torch.cuda.is_available():
        states += [_cuda(index) for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        states.append(DeviceState(name="mps", description="Apple GPU", bfloat16=False, problem=_problem_of("mps")))
    return states


def _cuda(index: int) -> DeviceState:
    name = f"cuda:{index}"
    properties = torch.cuda.get_device_properties(index)
    problem = _problem_of(name)
    return DeviceState(
        name=name,
        description=f"{properties.name}, compute capability {properties.major}.{properties.minor}",
        memory=properties.total_memory,
        memory_free=None if problem else torch.cuda.mem_get_info(index)[0],
        bfloat16=properties.major >= 8,
        problem=problem,
    )


def _problem_of(device: str) -> str:
    """What goes wrong when a debug model does one step there; empty if nothing does."""
    try:
        model = build("fastvit_debug", num_classes=10).to(device)
        loss = model(torch.randn(2, 3, 32, 32, device=device)).logsumexp(1).mean()
        loss.backward()
        finite = all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)
        return "" if finite else "the gradient of a debug model is not finite"
    except (RuntimeError, NotImplementedError, AssertionError) as error:  # torch raises these for broken drivers
        return " ".join(str(error).split()) or type(error).__name__
