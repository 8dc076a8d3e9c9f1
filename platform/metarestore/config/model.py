"""Options of the networks, with their defaults: one model per kind."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import BeforeValidator, Field

from metarestore.config.network_path import NetworkPath
from metarestore.config.registry import Implemented, Registered, Registry


class BaseModelSpec(Implemented):
    """What the specifications of all networks have in common.

    `implementation` takes the scale and the keys of the specification, and returns a
    `metarestore.models.network.Network`.
    """

    keep_low_frequencies: Literal["none", "hr", "both"] = Field("none", exclude_if=lambda value: value == "none")
    """Where the low frequencies of LR (exposure, tone, vignetting) replace those of other images: in the HR images that
    are learned from (`hr`), or also in every output of the network, in learning and in restoring (`both`)."""

    @property
    def privileged(self) -> bool:
        """Whether the network also requires the HR images as input (a teacher)."""
        return False

    @property
    def teacher_key(self) -> str:
        """The key that makes the network a teacher, for messages."""
        return f"model.kind: {getattr(self, 'kind', '')}"

    @property
    def encodes(self) -> bool:
        """Whether the network encodes HR as an image of LR size."""
        return False

    @property
    def describes(self) -> bool:
        """Whether the network has a degradation encoder."""
        return False

    def stored(self) -> dict[str, Any]:
        """Returns the description of the network that its file contains, as JSON data."""
        return self.model_dump(mode="json")


class FSRCNNSpec(BaseModelSpec):
    """FSRCNN(d, s, m) (Dong et al., 2016), on luma or on RGB."""

    implementation: ClassVar[str] = "metarestore.models.fsrcnn:FSRCNN"

    kind: Literal["fsrcnn"] = "fsrcnn"
    channels: Literal["y", "rgb"] = "y"
    d: int = Field(56, ge=1)
    """Number of feature channels."""
    s: int = Field(12, ge=1)
    """Number of channels of the mapping layers."""
    m: int = Field(4, ge=0)
    """Number of mapping layers."""
    residual: Literal["bicubic", "none"] = "bicubic"
    """Whether the network predicts a residual that is added to the bicubic upscaling; `none` is the published
    variant."""
    prelu: Literal["per_channel", "per_layer"] = Field("per_channel", exclude_if=lambda value: value == "per_channel")
    """Whether a PReLU has one slope per channel, or one slope shared by all channels of a layer, as published."""


class KDSRSpec(BaseModelSpec):
    """KDSR (Xia et al., 2023): a network whose kernels depend on a degradation embedding, on RGB."""

    implementation: ClassVar[str] = "metarestore.models.kdsr:KDSR"

    kind: Literal["kdsr"]
    size: Literal["tiny", "s", "m", "l"] = "s"
    """`m` and `l` are the published sizes (5.8 and 14.2 million parameters at scale 4); `s` and `tiny` have about 1 and
    0.15 million."""
    estimator: Literal["student", "teacher", "none"] = "student"
    """Input of the degradation encoder: LR (`student`), LR and HR (`teacher`, for distillation only), or nothing: the
    embedding is a learned constant (`none`, the control)."""
    embedding: Literal["image", "task"] = "image"
    """Whether each image is restored with its own embedding, or all images of a task, which share their degradation,
    with the mean of their embeddings."""
    channels: Literal["rgb"] = "rgb"

    @property
    def privileged(self) -> bool:
        """Whether the degradation encoder receives HR."""
        return self.estimator == "teacher"

    @property
    def teacher_key(self) -> str:
        """The key that makes the network a teacher, for messages."""
        return "model.estimator: teacher"

    @property
    def describes(self) -> bool:
        """Whether there is a degradation encoder."""
        return self.estimator != "none"


class CompactSpec(BaseModelSpec):
    """SRVGGNetCompact (Wang et al., Real-ESRGAN, 2021): 3×3 convolutions and PReLU at LR size.

    Weights have the published names and shapes, so that tools for the published networks can open them.
    """

    implementation: ClassVar[str] = "metarestore.models.compact:Compact"

    kind: Literal["compact"]
    size: Literal["superultracompact", "ultracompact", "compact"] = "superultracompact"
    """Numbers of channels and hidden convolutions: 24 and 8 (53 thousand parameters at scale 4), 64 and 8, or 64 and
    16."""
    channels: Literal["y", "rgb"] = "rgb"


class ECBSRSpec(BaseModelSpec):
    """ECBSR (Zhang et al., 2021): plain 3×3 convolutions, each trained as the sum of several branches."""

    implementation: ClassVar[str] = "metarestore.models.ecbsr:ECBSR"

    kind: Literal["ecbsr"]
    m: int = Field(4, ge=0)
    """Number of hidden convolutions."""
    c: int = Field(16, ge=1)
    """Number of channels of the hidden layers; with m = 4 and c = 16, the folded network has 11,840 parameters at scale
    4."""
    channels: Literal["y", "rgb"] = "y"
    branches: bool = True
    """Whether to train the branches, or the plain convolutions into which they fold. A plain network can be initialised
    from one with branches (`training.init`) and then computes the same result."""


class ZeroShotNetworkSpec(BaseModelSpec):
    """The network of zero-shot restoration: it refines what bicubic upscaling makes of LR.

    At scale 2 it has 279 thousand parameters, 235 without the pre-processing module.
    """

    implementation: ClassVar[str] = "metarestore.models.refiner:ZeroShotNetwork"

    kind: Literal["zero_shot"]
    preprocessing: int = Field(32, ge=0)
    """Channels of the pre-processing module; 0 leaves it out."""
    channels: Literal["rgb"] = "rgb"


AnyDecoderSpec = FSRCNNSpec | CompactSpec | ECBSRSpec


class PISRTeacherSpec(BaseModelSpec):
    """Teacher of PISR (Lee et al., 2020): encodes HR as an image of LR size, which a decoder restores.

    Students are initialised from the decoder; only they restore photographs.
    """

    implementation: ClassVar[str] = "metarestore.models.build:pisr_teacher"

    kind: Literal["pisr_teacher"]
    decoder: Annotated[AnyDecoderSpec, Field(discriminator="kind")] = FSRCNNSpec()
    """The network that restores the encoded image; students have the same architecture."""
    d: int = Field(56, ge=1)
    """Channels of the encoder's first two layers."""
    s: int = Field(12, ge=1)
    """Channels of the encoder's third layer."""

    @property
    def channels(self) -> Literal["y", "rgb"]:
        """Channels of the decoder."""
        return self.decoder.channels

    @property
    def privileged(self) -> bool:
        """The encoder receives HR."""
        return True

    @property
    def encodes(self) -> bool:
        """The encoding is trained to resemble LR."""
        return True


class SpandrelSpec(BaseModelSpec):
    """A network of another project, whose architecture the library spandrel recognises (extra `spandrel`).

    The file determines architecture, size and scale; training starts from its weights.
    """

    implementation: ClassVar[str] = "metarestore.models.checkpoint:network_of_file"

    kind: Literal["spandrel"]
    path: NetworkPath
    """File of the network (`.safetensors`, `.pth`, `.pt` or `.ckpt`), relative to the project's folder."""

    def stored(self) -> dict[str, Any]:
        """Returns everything but the file: a saved network does not need the file that it was trained from."""
        return self.model_dump(mode="json", exclude={"path"})


def _with_kind(data: Any) -> Any:
    """Sets a missing kind to FSRCNN, for files that were written before there were other kinds."""
    return {"kind": "fsrcnn", **data} if isinstance(data, dict) and "kind" not in data else data


AnyModelSpec = FSRCNNSpec | KDSRSpec | CompactSpec | ECBSRSpec | PISRTeacherSpec | ZeroShotNetworkSpec | SpandrelSpec
"""The networks of this package."""

NETWORKS: Registry[BaseModelSpec] = Registry("metarestore.networks", BaseModelSpec, get_args(AnyModelSpec))
"""The specifications of all networks, by their kinds."""

ModelSpec = Annotated[AnyModelSpec, Registered(NETWORKS), BeforeValidator(_with_kind)]
