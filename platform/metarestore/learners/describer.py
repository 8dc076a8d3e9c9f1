"""The trained network by which the `descriptor` estimator tells what was done to images."""

from __future__ import annotations

from metarestore.config.estimators import DescriptorEstimatorSpec, Estimator, estimate_behind, network_key
from metarestore.errors import UserError
from metarestore.models.checkpoint import load_model
from metarestore.models.kdsr import KDSR


def open_describer(estimator: Estimator, scale: int) -> KDSR:
    """Opens the network of a `descriptor` estimator, or of the one behind a control.

    Args:
        estimator: The graph's estimator.
        scale: Upscaling factor of the study.

    Raises:
        UserError: There is no such network, or it has no estimator of the degradation, or another scale.
        TypeError: The estimator describes nothing.
    """
    options, key = estimate_behind(estimator), network_key(estimator)
    if not isinstance(options, DescriptorEstimatorSpec):
        raise TypeError(f"the estimator {options.kind} describes nothing")
    try:
        network = load_model(options.network)
    except UserError as error:
        raise UserError(f"{key}: {error}") from error
    if not isinstance(network, KDSR) or network.estimator is None:
        raise UserError(
            f"{key}: {options.network} has no estimator of the degradation; name a KDSR that was trained with "
            "model.estimator: teacher or student"
        )
    if network.scale != scale:
        raise UserError(
            f"{key}: {options.network} is for scale {network.scale}, the target for scale {scale}; name one for it, or "
            "choose another graph.estimator"
        )
    return network
