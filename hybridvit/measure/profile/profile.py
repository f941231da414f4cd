"""Profile a model: time, memory, arithmetic and bytes of its parts, in inference or in a training step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from hybridvit.errors import UsageError
from hybridvit.machine.facts import usable_cores
from hybridvit.machine.memory import enough_memory
from hybridvit.measure.conditions import Conditions, Watch
from hybridvit.measure.counts import count_call, meta_copy
from hybridvit.measure.profile.backward import example_targets, timed_steps
from hybridvit.measure.profile.moved import moved_bytes
from hybridvit.measure.profile.operators import folded_stacks, profiled_operators
from hybridvit.measure.profile.parts import check_parts, measure_parts
from hybridvit.measure.profile.result import Cost, Mode, Profile, Span
from hybridvit.measure.profile.roof import Roof, measure_roof
from hybridvit.measure.profile.saved import BETWEEN, saved_bytes
from hybridvit.measure.profile.units import Call, Depth, Unit, mapped, recorded_calls, units_of
from hybridvit.measure.subject import Subject, build, find_subject
from hybridvit.models.backbone import Backbone
from hybridvit.models.whole import WholeModel

WHOLE = ""  # the name of the whole model among the parts that take turns
ROUNDS = {"inference": 50, "training": 10}


@dataclass(frozen=True, kw_only=True)
class ProfileOptions:
    """How to profile; the defaults are one image in inference, by block."""

    mode: Mode = "inference"
    depth: Depth = "block"
    batch: int = 1
    image_size: tuple[int, int] | None = None  # height, width in pixels; by default the model's own
    threads: int | None = None
    device: str = "cpu"
    rounds: int | None = None  # calls of each part, or training steps; by default ROUNDS


def profile_model(
    name: str,
    options: ProfileOptions,
    *,
    trace: Path | None = None,
    stacks: Path | None = None,
    show: Callable[[str], None] = lambda _: None,
) -> Profile:
    """Profile `name`, a model of ours or a checkpoint. `trace` (.json.gz) and `stacks` are files of its operators.

    Inference is that of the folded model in fp32; training that of the model in fp32, channels last, with AdamW and
    cross-entropy on random images.

    Raises:
        UsageError: for exported files and timm's models, whose parts are not known; for training without classes or of
            a folded file; for options that cannot be.
    """
    subject = find_subject(name)
    _check(subject, options)
    size = options.image_size or subject.image_size
    torch.set_num_threads(options.threads or usable_cores())
    model = _built(subject, options.mode, size).to(options.device)
    assert isinstance(model, WholeModel)
    if options.mode == "training" and not (isinstance(model, Backbone) and model.num_classes):
        raise UsageError(
            f"{name} answers with no classes, and the step that is profiled learns classes. Use --mode inference."
        )
    units = units_of(model, options.depth)
    shape = (options.batch, model.in_chans, *size)
    with enough_memory(shape):
        images = torch.randn(shape, device=options.device)
        show("the roofs of this machine")
        roof = measure_roof(options.device)
        profiled = _inference if options.mode == "inference" else _training
        found, run = profiled(subject, model, units, images, options, roof, show)
        if options.depth == "operator":
            show("operators")
            found = replace(found, operators=tuple(profiled_operators(run, units, device=options.device, trace=trace)))
    if stacks is not None:
        from hybridvit.atomic import write_text

        write_text(stacks, folded_stacks(found.operators, units, name))
    return found


def _check(subject: Subject, options: ProfileOptions) -> None:
    check_parts(subject, batch=options.batch, rounds=_rounds(options), threads=options.threads, device=options.device)
    if options.mode == "training" and subject.is_folded:
        raise UsageError(
            f"{subject.name} is folded: its training form is gone. Use --mode inference, or the checkpoint it was "
            "folded from."
        )


def _rounds(options: ProfileOptions) -> int:
    return ROUNDS[options.mode] if options.rounds is None else options.rounds


def _built(subject: Subject, mode: Mode, size: tuple[int, int]) -> nn.Module:
    if mode == "inference":
        return build(subject, "folded", size)
    return build(subject, "training", size).train().requires_grad_(True).to(memory_format=torch.channels_last)


def _inference(
    subject: Subject,
    model: nn.Module,
    units: Sequence[Unit],
    images: Tensor,
    options: ProfileOptions,
    roof: Roof,
    show: Callable[[str], None],
) -> tuple[Profile, Callable[[], object]]:
    """Every part on its own input, all and the whole model taking turns."""

    @torch.inference_mode()
    def run() -> object:
        return model(images)

    with torch.inference_mode():
        calls = recorded_calls(model, units, images)
        show(f"{len(calls)} parts, {_rounds(options)} rounds")
        times, conditions = measure_parts(calls, {WHOLE: run}, device=options.device, rounds=_rounds(options))
        whole = Span.of_latency(times[WHOLE])
        spans = [Span.of_latency(times[call.unit.path]) for call in calls]
        costs = [
            _cost(call, span, share=span.median_ms / whole.median_ms) for call, span in zip(calls, spans, strict=True)
        ]
    # by round, since a disturbance is in one round's parts as in its whole, but in no part's median
    rounds = zip(*(times[name].turns_ms for name in (WHOLE, *(call.unit.path for call in calls))), strict=True)
    share = median(sum(parts_ms) / whole_ms for whole_ms, *parts_ms in rounds)
    found = _profile(
        subject, images, options, roof, costs, whole, conditions,
        between_ms=whole.median_ms * (1 - share), measured_share=share,
    )  # fmt: skip
    return found, run


def _training(
    subject: Subject,
    model: nn.Module,
    units: Sequence[Unit],
    images: Tensor,
    options: ProfileOptions,
    roof: Roof,
    show: Callable[[str], None],
) -> tuple[Profile, Callable[[], object]]:
    """Whole steps, timed at the borders of the parts."""
    images = images.contiguous(memory_format=torch.channels_last)
    targets = example_targets(model, images)
    optimizer = torch.optim.AdamW(model.parameters())
    saved = saved_bytes(model, units, images)
    with torch.no_grad():
        calls = recorded_calls(model, units, images)
    watch = Watch(())
    steps = timed_steps(model, units, images, optimizer, steps=_rounds(options), device=options.device, show=show)
    conditions = watch.conditions({"step": [step.whole for step in steps]}, calls=1)
    costs = []
    for call in calls:
        path, parameters = call.unit.path, list(call.unit.module.parameters())
        state = [value for each in parameters for value in optimizer.state[each].values()]
        costs.append(
            replace(
                _cost(
                    call,
                    Span.of(step.forward[path] for step in steps),
                    share=median(step.share(path) for step in steps),
                ),
                backward=Span.of(step.backward[path] for step in steps),
                saved_bytes=saved[path],
                gradient_bytes=_bytes(parameters),
                optimizer_bytes=_bytes(value for value in state if isinstance(value, Tensor)),
            )
        )
    others = {
        "loss": median(step.loss for step in steps),
        "optimizer": median(step.optimizer for step in steps),
    }
    whole = Span.of(step.whole for step in steps)
    found = _profile(
        subject, images, options, roof, costs, whole, conditions,
        between_ms=median(step.between for step in steps),
        measured_share=median(1 - step.between / step.whole for step in steps),
    )  # fmt: skip

    def run() -> object:
        torch.nn.functional.cross_entropy(model(images), targets).backward()
        optimizer.step()
        return optimizer.zero_grad(set_to_none=True)

    return replace(found, others_ms=others, saved_between_bytes=saved[BETWEEN]), run


def _profile(
    subject: Subject,
    images: Tensor,
    options: ProfileOptions,
    roof: Roof,
    costs: Sequence[Cost],
    whole: Span,
    conditions: Conditions,
    *,
    between_ms: float,
    measured_share: float,
) -> Profile:
    height, width = images.shape[-2:]
    return Profile(
        model=subject.name,
        mode=options.mode,
        depth=options.depth,
        batch=options.batch,
        image_size=(height, width),
        threads=torch.get_num_threads(),
        device=options.device,
        rounds=_rounds(options),
        costs=tuple(costs),
        whole=whole,
        others_ms={},
        between_ms=between_ms,
        measured_share=measured_share,
        saved_between_bytes=None,
        roof=roof,
        conditions=conditions,
    )


def _cost(call: Call, forward: Span, *, share: float) -> Cost:
    """The counts of a call, on the meta device: on real tensors of a CPU torch counts no fused attention."""
    unit, meta = call.unit, meta_copy(call.unit.module)
    inputs, options = mapped((call.inputs, call.options), lambda x: x.to("meta"))
    counts, _ = count_call(meta, *inputs, **options)
    return Cost(
        stage=unit.stage,
        path=unit.path,
        name=unit.name,
        kind=unit.kind,
        forward=forward,
        share=share,
        multiply_adds=counts.multiply_adds,
        parameters=counts.parameters,
        weight_bytes=_bytes(unit.module.parameters()),
        moved_bytes=moved_bytes(meta, *inputs, **options),
    )


def _bytes(tensors: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
