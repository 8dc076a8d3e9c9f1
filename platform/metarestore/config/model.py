"""What an experiment file may say about its network."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from metarestore.config.base import Strict


class FSRCNNModel(Strict):
    """FSRCNN(d, s, m) (Dong et al., 2016), on luma or on RGB."""

    kind: Literal["fsrcnn"] = "fsrcnn"
    channels: Literal["y", "rgb"] = "y"
    d: int = Field(56, ge=1)
    """Feature channels."""
    s: int = Field(12, ge=1)
    """Channels of the mapping layers."""
    m: int = Field(4, ge=0)
    """Number of mapping layers."""
    residual: Literal["bicubic", "none"] = "bicubic"
    """Whether the network adds to the bicubic upscaling; `none` is the published form."""


class KDSRModel(Strict):
    """KDSR (Xia et al., 2023): a network whose kernels follow an estimate of the degradation, on RGB."""

    kind: Literal["kdsr"]
    size: Literal["tiny", "s", "m", "l"] = "s"
    """`m` and `l` are published (5.8 and 14.2 million parameters at scale 4), `s` and `tiny` are about 1 and 0.15."""
    estimator: Literal["student", "teacher", "none"] = "student"
    """What the degradation is estimated from: LR (student), LR and HR (teacher, for distillation alone), or nothing:
    one constant stands in its place (none, the control)."""
    embedding: Literal["image", "task"] = "image"
    """Whether each image is restored by its own embedding, or the images of a task, which have one degradation, by the
    mean of theirs."""
    channels: Literal["rgb"] = "rgb"


def _with_kind(data: Any) -> Any:
    """Takes a model without a kind for FSRCNN: there was no other when the first files were written."""
    return {"kind": "fsrcnn", **data} if isinstance(data, dict) and "kind" not in data else data


AnyModelSpec = FSRCNNModel | KDSRModel
ModelSpec = Annotated[AnyModelSpec, Field(discriminator="kind"), BeforeValidator(_with_kind)]
