"""Opens the trained network that the `descriptor` estimator computes descriptors with."""

from __future__ import annotations

from metarestore.config.estimators import DescriptorEstimatorSpec, Estimator, estimate_behind, network_key
from metarestore.errors import UserError
from metarestore.models.checkpoint import load_model
from metarestore.models.kdsr import KDSR


def open_describer(estimator: Estimator, scale: int) -> KDSR:
    """Opens the network of a `descriptor` estimator, or of a control that wraps one.

    Args:
        estimator: The graph's estimator.
        scale: Upscaling factor of the study.

    Raises:
        UserError: The network does not exist, has no degradation encoder, or has another scale.
        TypeError: The estimator does not use descriptors.
    """
    options, key = estimate_behind(estimator), network_key(estimator)
    if not isinstance(options, DescriptorEstimatorSpec):
        raise TypeError(f"the estimator {options.kind} does not use descriptors")
    try:
        network = load_model(options.network)
    except UserError as error:
        raise UserError(f"{key}: {error}") from error
    if not isinstance(network, KDSR) or network.estimator is None:
        raise UserError(
            f"{key}: {options.network} has no degradation encoder; give a KDSR that was trained with "
            "model.estimator: teacher or student"
        )
    if network.scale != scale:
        raise UserError(
            f"{key}: {options.network} has scale {network.scale}, but the target has scale {scale}; give a network of "
            "that scale, or choose another graph.estimator"
        )
    return network
