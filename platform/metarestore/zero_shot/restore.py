"""Restores a photograph from itself alone: kernel, teacher, student, restoration."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from metarestore.config.adaptation import AdaptationOptimizerSpec
from metarestore.degradations.resample import bicubic_upsample
from metarestore.learners.adaptation import adapt
from metarestore.learners.inner_rule import InnerRule
from metarestore.learners.learner import restore
from metarestore.models.network import seeded
from metarestore.models.parameters import Layout, initial_vector
from metarestore.models.refiner import Refiner
from metarestore.seeds import derived_seed
from metarestore.zero_shot.blur import with_colour_of
from metarestore.zero_shot.objective import StudentTerms, preprocessing_term
from metarestore.zero_shot.options import Clock, Stage, ZeroShotOptions, ZeroShotResult
from metarestore.zero_shot.pairs import InternalPairs, internal_pairs
from metarestore.zero_shot.photograph import Photograph

_NOISY = 1.5  # grey levels from which back-projection amplifies more noise than it restores
_NOISY_PROJECTIONS = 2
_PROJECTIONS = ("back_projections", "final_projections")
_STRIP = 2**17  # LR pixels that the network restores at once: about 100 MiB

Report = Callable[[str, int, float], None]
"""Called after every step with the name of the stage, the number of its steps so far, and the fraction completed."""


def restore_zero_shot(
    image: Tensor,
    scale: int,
    options: ZeroShotOptions | None = None,
    *,
    report: Report | None = None,
    clock: Clock = time.monotonic,
) -> ZeroShotResult:
    """Restores a photograph with a network that learns from this photograph alone.

    The photograph is degraded once more by the kernel that is estimated from it. A *teacher* learns to reverse this
    degradation. Optionally, a *student* starts from the teacher's weights and continues with additional loss terms on
    the restored photograph. Both networks correct the result of back-projection with the same kernel.

    Args:
        image: LR (3, h, w) or gray (1, h, w), in [0, 1]; computed on its device.
        scale: Factor s, 2, 3 or 4.
        options: Options of the restoration.
        report: Receives the progress.
        clock: Returns seconds, for the time budget.

    Returns:
        The restored photograph (3, s·h, s·w), its kernel and diagnostics. Without a time budget, the result depends on
        the arguments only.

    Raises:
        ValueError: The image has another shape or values that are not finite, or the kernel does not fit the scale.
    """
    options, began = options or ZeroShotOptions(), clock()
    photograph = Photograph.of(image, scale, options.kernel)
    if photograph.noise > _NOISY:
        fewest = {name: min(getattr(options, name), _NOISY_PROJECTIONS) for name in _PROJECTIONS}
        options = replace(options, **fewest)
    adaptation = _Adaptation(photograph, options, report, clock)
    adaptation.began = began
    reason = "no steps" if _no_steps(options) else photograph.reason_not_to_learn()
    flat = None if reason else adaptation.run()
    restored = _restored(adaptation.model, flat, photograph, options)
    return ZeroShotResult(
        restored[0],
        photograph.estimate,
        adaptation.steps,
        adaptation.seconds,
        photograph.skipped(reason and f"{reason}; it is back-projected only"),
        flat,
        photograph.diagnostics,
    )


class _Adaptation:
    """The two stages of adaptation to one photograph.

    Attributes:
        model: The network.
        steps: Number of steps taken so far by each stage.
        began: Start of the time budget, which includes the time before learning.
        seconds: Time from there to the end of learning.
    """

    def __init__(self, photograph: Photograph, options: ZeroShotOptions, report: Report | None, clock: Clock) -> None:
        self._lr, self._blur, self._confidence = photograph.lr, photograph.blur, photograph.estimate.confidence
        self._noise = photograph.noise / 255 if photograph.noise > _NOISY else 0.0
        self._options, self._report, self._clock = options, report, clock
        seed, scale = derived_seed(options.seed, "zero shot", "network"), photograph.blur.scale
        self.model = seeded(Refiner, seed, scale=scale, preprocessing=options.preprocessing).to(self._lr.device)
        self.steps: dict[str, int] = {}
        self.began = clock()
        self.seconds = 0.0

    def run(self) -> Tensor:
        """Adapts the teacher, then the student, and returns the final weights (P,)."""
        options = self._options
        pairs = internal_pairs(
            self._lr,
            self._blur,
            back_projections=options.back_projections,
            noise=self._noise,
            patch=options.patch,
            batch=options.batch,
            seed=options.seed,
        )
        flat = options.start if options.start is not None else initial_vector(self.model)
        if flat.shape != (Layout.of(self.model).size,):
            raise ValueError(
                f"start must have the shape ({Layout.of(self.model).size},) of this network's weights, "
                f"got {tuple(flat.shape)}"
            )
        flat = self._stage("teacher", options.teacher, flat.to(self._lr.device), pairs, None)
        if options.student.steps:
            terms = StudentTerms(
                self.model,
                flat,
                pairs,
                self._lr,
                self._blur,
                self._confidence,
                options.losses,
                options.back_projections,
            )
            student = replace(pairs, seed=derived_seed(options.seed, "zero shot", "student"))
            flat = self._stage("student", options.student, flat, student, terms)
        self.seconds = self._clock() - self.began
        return flat

    def _stage(
        self,
        name: str,
        stage: Stage,
        flat: Tensor,
        pairs: InternalPairs,
        student: StudentTerms | None,
    ) -> Tensor:
        before, share = _shares(self._options)[name]
        budget = _Budget(self._options.budget, self._clock, self.began, before, share, stage.steps)
        weight = self._options.losses.preprocessing if self._options.preprocessing else 0.0

        def terms(params: dict[str, Tensor], step: int, lr: Tensor, hr: Tensor) -> Tensor:
            total = weight * preprocessing_term(self.model, params, lr, hr) if weight else lr.new_zeros(())
            return total + student(params, step, lr) if student is not None else total

        def observe(step: int, _: Tensor) -> None:
            self.steps[name] = step
            if self._report:
                self._report(name, step, budget.done(step))

        return adapt(
            self.model,
            flat,
            pairs.inputs,
            pairs.targets,
            AdaptationOptimizerSpec(optimizer="adam", steps=stage.steps, lr=stage.lr, schedule="cosine"),
            rule=InnerRule(loss_name="l1", eps=0.0),
            observe=observe,
            pairs=pairs,
            terms=terms if weight or student is not None else None,
            progress=budget.done if budget.limited else None,
        )


@dataclass(frozen=True)
class _Budget:
    """A stage's part of the time budget, which ends when its share and those of earlier stages are used up.

    Attributes:
        seconds: The whole budget; None for no limit.
        clock: Returns seconds.
        began: Start of the time budget.
        before: Fraction of the budget for the earlier stages.
        share: Fraction of the budget for this stage.
        steps: Maximum number of steps of this stage.
    """

    seconds: float | None
    clock: Clock
    began: float
    before: float
    share: float
    steps: int

    @property
    def limited(self) -> bool:
        """Whether there is a time limit."""
        return self.seconds is not None

    def done(self, step: int) -> float:
        """Returns the fraction of the stage that is completed before a step."""
        by_steps = step / max(self.steps, 1)
        if self.seconds is None:
            return by_steps
        spent = (self.clock() - self.began) / max(self.seconds, 1e-9) - self.before
        return max(by_steps, spent / max(self.share, 1e-9))


def _shares(options: ZeroShotOptions) -> dict[str, tuple[float, float]]:
    """Returns the fractions of the budget before each stage and for it; a stage without steps needs no time."""
    teacher, student = (stage.share if stage.steps else 0.0 for stage in (options.teacher, options.student))
    whole = teacher + student or 1.0
    return {"teacher": (0.0, teacher / whole), "student": (teacher / whole, student / whole)}


def _no_steps(options: ZeroShotOptions) -> bool:
    return options.start is None and not options.teacher.steps and not options.student.steps


def _restored(model: Refiner, flat: Tensor | None, photograph: Photograph, options: ZeroShotOptions) -> Tensor:
    lr, blur = photograph.lr, photograph.blur
    bicubic = bicubic_upsample(lr, blur.scale).clamp(0, 1)
    restored = blur.back_project(bicubic, lr, options.back_projections)
    if flat is not None:
        params = Layout.of(model).unflatten(flat)
        with torch.no_grad():
            corrected = _in_strips(model, params, restored)
            if options.self_ensemble:
                rotated = _in_strips(model, params, restored.flip(-2, -1))
                corrected = (corrected + rotated.flip(-2, -1)) / 2
        restored = corrected.clamp(0, 1)
    restored = blur.back_project(restored, lr, options.final_projections)
    return with_colour_of(restored, bicubic, blur.scale) if options.keep_colour else restored


def _in_strips(model: Refiner, params: dict[str, Tensor], images: Tensor) -> Tensor:
    """Corrects images in strips, which overlap by the receptive-field radius so that there are no seams."""
    height, width = images.shape[-2:]
    rows = max(_STRIP * model.scale // width, 1) * model.scale
    margin, strips = model.reach * model.scale, []
    for top in range(0, height, rows):
        first, last = max(top - margin, 0), min(top + rows + margin, height)
        part = restore(model, params, images[..., first:last, :])
        strips.append(part[..., top - first :, :][..., :rows, :])
    return torch.cat(strips, dim=-2)
