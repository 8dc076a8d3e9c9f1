"""What an experiment file may say about its network: one model per kind, and where every default stands."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import BeforeValidator, Field

from metarestore.config.registry import Implemented, Registered, Registry


class BaseModelSpec(Implemented):
    """What the specifications of all networks have in common.

    `implementation` takes the scale and the keys of the specification, and returns a
    `metarestore.models.network.Network`.
    """

    @property
    def privileged(self) -> bool:
        """Whether the network must be given the HR images too: a teacher."""
        return False

    @property
    def teacher_key(self) -> str:
        """The key that makes the network a teacher, for messages."""
        return f"model.kind: {getattr(self, 'kind', '')}"

    @property
    def encodes(self) -> bool:
        """Whether the network passes HR through an encoding of the size of LR."""
        return False

    @property
    def describes(self) -> bool:
        """Whether the network has an estimator of the degradation."""
        return False


class FSRCNNModel(BaseModelSpec):
    """FSRCNN(d, s, m) (Dong et al., 2016), on luma or on RGB."""

    implementation: ClassVar[str] = "metarestore.models.fsrcnn:FSRCNN"

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
    prelu: Literal["per_channel", "per_layer"] = Field("per_channel", exclude_if=lambda value: value == "per_channel")
    """Whether each channel of a PReLU has a slope of its own, or all channels of a layer share one, as published."""


class KDSRModel(BaseModelSpec):
    """KDSR (Xia et al., 2023): a network whose kernels follow an estimate of the degradation, on RGB."""

    implementation: ClassVar[str] = "metarestore.models.kdsr:KDSR"

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

    @property
    def privileged(self) -> bool:
        """Whether the estimator sees HR."""
        return self.estimator == "teacher"

    @property
    def teacher_key(self) -> str:
        """The key that makes the network a teacher, for messages."""
        return "model.estimator: teacher"

    @property
    def describes(self) -> bool:
        """Whether there is an estimator."""
        return self.estimator != "none"


class CompactSpec(BaseModelSpec):
    """SRVGGNetCompact (Wang et al., Real-ESRGAN, 2021): 3×3 convolutions and PReLU at LR size.

    Weights have the published names and shapes, so that tools that read the published networks open them.
    """

    implementation: ClassVar[str] = "metarestore.models.compact:Compact"

    kind: Literal["compact"]
    size: Literal["superultracompact", "ultracompact", "compact"] = "superultracompact"
    """Channels and hidden convolutions: 24 and 8 (53 thousand parameters at scale 4), 64 and 8, or 64 and 16."""
    channels: Literal["y", "rgb"] = "rgb"


class ECBSRSpec(BaseModelSpec):
    """ECBSR (Zhang et al., 2021): plain 3×3 convolutions, each trained as the sum of several branches."""

    implementation: ClassVar[str] = "metarestore.models.ecbsr:ECBSR"

    kind: Literal["ecbsr"]
    m: int = Field(4, ge=0)
    """Number of hidden convolutions."""
    c: int = Field(16, ge=1)
    """Channels of the hidden layers; with m = 4 and c = 16, 11,840 parameters are left of the network at scale 4."""
    channels: Literal["y", "rgb"] = "y"
    branches: bool = True
    """Whether the branches are learned, or the plain convolutions that they fold into. A plain network may start from
    one with branches (`training.init`), and then computes the same."""


AnyDecoderSpec = FSRCNNModel | CompactSpec | ECBSRSpec


class PISRTeacherSpec(BaseModelSpec):
    """Teacher of PISR (Lee et al., 2020): encodes HR as an image of the size of LR, which a student's network decodes.

    The students take over the decoder; only they restore photographs.
    """

    implementation: ClassVar[str] = "metarestore.models.build:pisr_teacher"

    kind: Literal["pisr_teacher"]
    decoder: Annotated[AnyDecoderSpec, Field(discriminator="kind")] = FSRCNNModel()
    """The network that restores the encoded image: that of the students."""
    d: int = Field(56, ge=1)
    """Channels of the encoder's first two layers."""
    s: int = Field(12, ge=1)
    """Channels of the encoder's third layer."""

    @property
    def channels(self) -> Literal["y", "rgb"]:
        """The images of the decoder."""
        return self.decoder.channels

    @property
    def privileged(self) -> bool:
        """The encoder sees HR."""
        return True

    @property
    def encodes(self) -> bool:
        """The encoding is learned to resemble LR."""
        return True


def _with_kind(data: Any) -> Any:
    """Takes a model without a kind for FSRCNN: there was no other when the first files were written."""
    return {"kind": "fsrcnn", **data} if isinstance(data, dict) and "kind" not in data else data


AnyModelSpec = FSRCNNModel | KDSRModel | CompactSpec | ECBSRSpec | PISRTeacherSpec
"""The networks of this package."""

NETWORKS: Registry[BaseModelSpec] = Registry("metarestore.networks", BaseModelSpec, get_args(AnyModelSpec))
"""The specifications of all networks, by their kinds."""

ModelSpec = Annotated[AnyModelSpec, Registered(NETWORKS), BeforeValidator(_with_kind)]
