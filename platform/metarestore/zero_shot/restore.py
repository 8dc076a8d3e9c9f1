"""Restores one photograph from itself alone: kernel, teacher, student, restoration."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from metarestore.config.experiment import AdaptationOptimizerSpec
from metarestore.degradations.resample import bicubic_upsample
from metarestore.learners.adaptation import adapt
from metarestore.learners.inner_rule import InnerRule
from metarestore.learners.learner import restore
from metarestore.models.network import seeded
from metarestore.models.parameters import Layout, initial_vector
from metarestore.models.refiner import Refiner
from metarestore.seeds import derived_seed
from metarestore.zero_shot.blur import Blur, with_colour_of
from metarestore.zero_shot.kernel import KernelEstimate, estimate_kernel, grey_levels
from metarestore.zero_shot.objective import StudentTerms, preprocessing_term
from metarestore.zero_shot.options import Stage, ZeroShotOptions, ZeroShotResult
from metarestore.zero_shot.pairs import InternalPairs, internal_pairs
from metarestore.zero_shot.spectra import noise_level

SMALLEST = 16
"""Least height and width of an image that anything is learned from."""

_LEAST_CONTRAST = 1.0  # grey levels; below, the steps of Adam would follow rounding errors
_NOISY = 1.5  # grey levels from which back-projection amplifies more noise than it restores
_NOISY_PROJECTIONS = 2
_PROJECTIONS = ("back_projections", "final_projections")
_STRIP = 2**17  # LR pixels that the network restores at once: some 100 MiB

Clock = Callable[[], float]
Report = Callable[[str, int, float], None]
"""Called after every step with the stage, the number of its steps so far, and which share of it is done."""


def restore_zero_shot(
    image: Tensor,
    scale: int,
    options: ZeroShotOptions | None = None,
    *,
    report: Report | None = None,
    clock: Clock = time.monotonic,
) -> ZeroShotResult:
    """Restores a photograph by a network that learns from this photograph alone.

    The photograph is degraded once more by the kernel that is estimated from it; a *teacher* learns to undo that, and a
    *student* that starts from the teacher goes on, with terms on the restored photograph itself. Both correct what
    back-projection with the same kernel makes of their input, so that they start from its result.

    Args:
        image: LR (3, h, w) or gray (1, h, w), in [0, 1]; the work is done on its device.
        scale: Factor s, 2, 3 or 4.
        options: How it is restored.
        report: Receives the progress.
        clock: Returns seconds; a time budget is measured by it.

    Returns:
        The restored photograph, (3, s·h, s·w), and how it came about. Without a budget it depends on nothing but the
        arguments.

    Raises:
        ValueError: The image has another shape or values that are not finite, or the kernel does not fit the scale.
    """
    options, began = options or ZeroShotOptions(), clock()
    if not torch.isfinite(image).all():
        raise ValueError("the image has values that are not finite")
    estimate = _kernel(image, scale, options)
    lr = image.to(torch.float32).expand(3, -1, -1)[None].contiguous()
    blur = Blur(estimate.kernel, scale)
    noise = _noise(image)
    if noise > _NOISY:
        fewest = {name: min(getattr(options, name), _NOISY_PROJECTIONS) for name in _PROJECTIONS}
        options = replace(options, **fewest)
    learning = _Learning(lr, blur, estimate.confidence, noise / 255 if noise > _NOISY else 0.0, options, report, clock)
    learning.began = began
    obstacle = _obstacle(lr)
    flat = None if obstacle else learning.run()
    reasons = {"kernel": estimate.reason and f"{estimate.reason}; bicubic is assumed", "learning": obstacle}
    skipped = tuple(f"{part}: {reason}" for part, reason in reasons.items() if reason)
    restored = _restored(learning.model, flat, lr, blur, options)
    diagnostics = {**estimate.diagnostics, "noise_level": noise}
    return ZeroShotResult(restored[0], estimate, learning.steps, learning.seconds, skipped, flat, diagnostics)


class _Learning:
    """Both adaptations of one photograph.

    Attributes:
        model: The network.
        steps: Steps taken so far by each stage.
        began: When the time budget began; what came before learning counts.
        seconds: Time taken since then.
    """

    def __init__(
        self,
        lr: Tensor,
        blur: Blur,
        confidence: float,
        noise: float,
        options: ZeroShotOptions,
        report: Report | None,
        clock: Clock,
    ) -> None:
        self._lr, self._blur, self._confidence, self._noise = lr, blur, confidence, noise
        self._options, self._report, self._clock = options, report, clock
        seed = derived_seed(options.seed, "zero shot", "network")
        self.model = seeded(Refiner, seed, scale=blur.scale, preprocessing=options.preprocessing).to(lr.device)
        self.steps: dict[str, int] = {}
        self.began = clock()
        self.seconds = 0.0

    def run(self) -> Tensor:
        """Adapts teacher and student; returns the student's weights (P,)."""
        options, began = self._options, self.began
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
                f"the weights to start from are {tuple(flat.shape)}, but those of this network have "
                f"{Layout.of(self.model).size} numbers"
            )
        flat = self._stage("teacher", options.teacher, flat.to(self._lr.device), pairs, None, (began, 0.0))
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
            flat = self._stage("student", options.student, flat, student, terms, (began, options.teacher.share))
        self.seconds = self._clock() - began
        return flat

    def _stage(
        self,
        name: str,
        stage: Stage,
        flat: Tensor,
        pairs: InternalPairs,
        student: StudentTerms | None,
        budget_from: tuple[float, float],
    ) -> Tensor:
        budget = _Budget(self._options.budget, self._clock, *budget_from, stage)
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
    """The part of a time budget that a stage has: until both its share and what came before it are spent.

    Attributes:
        seconds: The whole budget; None if only steps count.
        clock: Returns seconds.
        began: When learning began.
        before: Share of the budget of what came before.
        stage: The stage.
    """

    seconds: float | None
    clock: Clock
    began: float
    before: float
    stage: Stage

    @property
    def limited(self) -> bool:
        """Whether there is a budget."""
        return self.seconds is not None

    def done(self, step: int) -> float:
        """Returns which share of the stage is done before a step."""
        by_steps = step / max(self.stage.steps, 1)
        if self.seconds is None:
            return by_steps
        spent = (self.clock() - self.began) / max(self.seconds, 1e-9) - self.before
        return max(by_steps, spent / self.stage.share)


def _kernel(image: Tensor, scale: int, options: ZeroShotOptions) -> KernelEstimate:
    if options.kernel is None:
        return estimate_kernel(image, scale)
    return KernelEstimate(np.asarray(options.kernel, dtype=np.float32), 1.0, "given", "", {})


def _noise(image: Tensor) -> float:
    """Returns the standard deviation of the noise in grey levels; 0 for images too small to tell."""
    if min(image.shape[-2:]) < SMALLEST:
        return 0.0
    return noise_level(grey_levels(image).cpu().numpy().astype(np.float64))


def _obstacle(lr: Tensor) -> str:
    """Returns why nothing can be learned from an image, or nothing."""
    if min(lr.shape[-2:]) < SMALLEST:
        return f"the image is smaller than {SMALLEST} pixels; it is back-projected only"
    if float(lr.std(dim=(-2, -1)).max()) * 255 < _LEAST_CONTRAST:
        return "the image has no contrast; it is back-projected only"
    return ""


def _restored(model: Refiner, flat: Tensor | None, lr: Tensor, blur: Blur, options: ZeroShotOptions) -> Tensor:
    bicubic = bicubic_upsample(lr, blur.scale).clamp(0, 1)
    restored = blur.back_project(bicubic, lr, options.back_projections)
    if flat is not None:
        params = Layout.of(model).unflatten(flat)
        with torch.no_grad():
            corrected = _in_strips(model, params, restored)
            if options.self_ensemble:
                turned = _in_strips(model, params, restored.flip(-2, -1))
                corrected = (corrected + turned.flip(-2, -1)) / 2
        restored = corrected.clamp(0, 1)
    restored = blur.back_project(restored, lr, options.final_projections)
    return with_colour_of(restored, bicubic, blur.scale) if options.keep_colour else restored


def _in_strips(model: Refiner, params: dict[str, Tensor], images: Tensor) -> Tensor:
    """Corrects images strip by strip; the strips overlap by the receptive field, so that no seam shows."""
    height, width = images.shape[-2:]
    rows = max(_STRIP * model.scale // width, 1) * model.scale
    margin, strips = model.reach * model.scale, []
    for top in range(0, height, rows):
        first, last = max(top - margin, 0), min(top + rows + margin, height)
        part = restore(model, params, images[..., first:last, :])
        strips.append(part[..., top - first :, :][..., :rows, :])
    return torch.cat(strips, dim=-2)
