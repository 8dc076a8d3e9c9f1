"""Refines a kernel by patches that recur across scales, alternating nearest neighbours and least squares.

A patch of LR whose larger copy occurs elsewhere in LR equals that copy, blurred by a kernel k and downsampled by s. The
kernel that makes patches most similar to such copies is not the blur K of the photograph itself: its spectrum is
k(w) = K(w) / K(w / s) at frequency w. The blur is therefore the product of k(w / s^j) over j = 0, 1, 2, ...

Source: Michaeli and Irani, Nonparametric Blind Super-Resolution (2013), algorithm 1 and eq. 10; here the kernel is
non-negative, patches have mean 0, and the difference from a Gaussian is penalised.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from metarestore.degradations.kernels import Kernel
from metarestore.seeds import generator
from metarestore.zero_shot.shapes import cleaned, gaussian_of
from metarestore.zero_shot.spectra import Floats, noise_level

PATCH = 5
_SIDE = 7  # pixels of the kernel's side per unit of the scale
_QUERIES, _CANDIDATES = 800, 16_000
_NEIGHBOURS = 3
_ROUNDS = 4
_SIMILAR = 10.0  # difference in grey levels at which the weight of a neighbour is exp(−1/2)
_PENALTY = 0.3
_LEAST_CONTRAST = 4.0  # grey levels above the noise; flat patches contain no information about the kernel
_FEWEST = 50
_LEVELS = 5
_FREQUENCIES = 64


def refined_kernel(luma: Tensor, covariance: Floats, scale: int) -> Kernel:
    """Refines a Gaussian estimate.

    Args:
        luma: Grey levels (h, w); computed on their device.
        covariance: The Gaussian (2, 2), in HR pixels squared.
        scale: Factor s.

    Returns:
        A centred kernel; the Gaussian itself if too few patches have sufficient contrast.
    """
    start = gaussian_of(covariance * (1 - 1 / scale**2), scale)
    side = _SIDE * scale
    internal = torch.from_numpy(_framed(start, side)).to(luma)
    least = _LEAST_CONTRAST + 2 * noise_level(luma.cpu().numpy().astype(np.float64))
    queries = _queries(luma, least)
    if len(queries) < _FEWEST or min(luma.shape) < side + PATCH * scale:
        return gaussian_of(covariance, scale)
    prior = internal
    for _ in range(_ROUNDS):
        internal = _round(luma, queries, internal, prior, scale, least)
    return cleaned(blur_of(internal.cpu().numpy().astype(np.float64), scale), scale)


def _queries(luma: Tensor, least: float) -> Tensor:
    """Draws patches of mean 0 (M, p²), with probabilities proportional to their contrast."""
    patches = _patches(luma, 1)
    contrast = patches.square().mean(dim=1).sqrt().cpu().numpy().astype(np.float64)
    weight = np.where(contrast > least, contrast, 0)
    count = min(_QUERIES, int((weight > 0).sum()))
    if not count:
        return patches[:0]
    chosen = generator("zero shot", "queries").choice(len(weight), count, replace=False, p=weight / weight.sum())
    queries: Tensor = patches[torch.from_numpy(np.sort(chosen)).to(luma.device)]
    return queries


def _round(luma: Tensor, queries: Tensor, kernel: Tensor, prior: Tensor, scale: int, least: float) -> Tensor:
    """Finds the nearest neighbours for a kernel, and returns the kernel that fits them best."""
    side = len(kernel)
    windows = luma.unfold(0, side, 1).unfold(1, side, 1)
    _rows, columns = windows.shape[:2]
    coarse = _patches(F.conv2d(luma[None, None], kernel[None, None])[0, 0], scale)
    kept = (coarse.square().mean(dim=1).sqrt() > least / 2).nonzero()[:, 0]
    kept = kept[:: len(kept) // _CANDIDATES + 1]
    if len(kept) < _NEIGHBOURS:
        return kernel
    distance, nearest = _neighbours(queries, coarse[kept])
    weight = torch.softmax(-distance / (2 * _SIMILAR**2), dim=1).sqrt()
    wide = columns - scale * (PATCH - 1)
    first = kept[nearest] // wide * columns + kept[nearest] % wide
    steps = scale * torch.arange(PATCH, device=luma.device)
    positions = first[..., None] + (steps[:, None] * columns + steps).flatten()
    values = windows[positions // columns, positions % columns].reshape(*positions.shape, side**2)
    terms = ((values - values.mean(dim=2, keepdim=True)) * weight[..., None, None]).reshape(-1, side**2)
    targets = (queries[:, None] * weight[..., None]).reshape(-1)
    return _solved(terms, targets, prior)


def _neighbours(queries: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor]:
    """Returns squared distances and indices (M, n) of the nearest candidates, by one matrix product."""
    norms = candidates.square().sum(dim=1)
    distances, indices = torch.topk(norms - 2 * queries @ candidates.T, _NEIGHBOURS, dim=1, largest=False)
    return distances + queries.square().sum(dim=1, keepdim=True), indices


def _solved(terms: Tensor, targets: Tensor, prior: Tensor) -> Tensor:
    """Solves least squares for a kernel, with a penalty on the roughness and size of its difference from a prior.

    Negative weights are set to 0.
    """
    side = len(prior)
    one = torch.eye(side).to(prior)
    ones = torch.ones(side - 1).to(prior)
    second = 2 * one - torch.diag(ones, 1) - torch.diag(ones, -1)
    laplacian = torch.kron(second, one) + torch.kron(one, second)
    penalty = laplacian.T @ laplacian + 0.1 * torch.eye(side**2).to(prior)
    gram, start = terms.T @ terms, prior.reshape(-1)
    strength = _PENALTY * gram.trace() / side**2
    difference = torch.linalg.solve(gram + strength * penalty, terms.T @ targets - gram @ start)
    positive = (start + difference).clamp_min(0)
    kernel: Tensor = (positive / positive.sum()).reshape(side, side)
    return kernel


def _patches(image: Tensor, dilation: int) -> Tensor:
    """Returns all patches (N, p²) of every `dilation`-th pixel, minus their means."""
    patches = F.unfold(image[None, None], PATCH, dilation=dilation)[0].T
    return patches - patches.mean(dim=1, keepdim=True)


def blur_of(internal: Floats, scale: int) -> Floats:
    """Returns the blur of the photograph, the product of the internal kernel's spectra at w, w / s, w / s², ..."""
    offsets = np.arange(len(internal)) - (len(internal) - 1) / 2
    frequencies = 2 * math.pi * (np.arange(_FREQUENCIES) / _FREQUENCIES - 0.5)
    spectrum = np.ones((_FREQUENCIES, _FREQUENCIES), dtype=np.complex128)
    for level in range(_LEVELS):
        waves = np.exp(-1j * frequencies[:, None] / scale**level * offsets)
        spectrum *= waves @ internal @ waves.T
    waves = np.exp(1j * frequencies[:, None] * offsets)
    return np.asarray((waves.T @ spectrum @ waves).real / _FREQUENCIES**2)


def _framed(kernel: Kernel, side: int) -> Kernel:
    """Crops or pads a centred kernel to a side, and normalises its sum to 1."""
    gap = (side - len(kernel)) // 2
    framed = np.pad(kernel, gap) if gap >= 0 else kernel[-gap:gap, -gap:gap]
    return np.asarray(framed / framed.sum(), dtype=np.float32)
