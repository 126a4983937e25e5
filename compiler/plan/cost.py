"""What a job costs, as the plan says it."""

from pydantic import Field

from .value import Value, later


class Cost(Value):
    """The cost of a job. Estimates (see docs/cost.md) are null if the device is unknown."""

    parameters: int
    active_parameters: int = Field(
        description="those that a token goes through: of experts those that it is routed to"
    )
    mtp_parameters: int = later(0, description="of modules that predict further tokens, on top")
    flops_per_token: int = Field(
        description="6 × active_parameters, as reports count, and as much for further tokens"
    )
    attention_flops_per_token: int = Field(description="causal attention scores, on top")
    flops: int = Field(description="flops_per_token × tokens")
    memory: dict[str, int] | None = Field(
        default=None, description="estimated bytes of the fullest GPU, by what they hold"
    )
    gpu_memory: int | None = Field(default=None, description="bytes that the GPU has")
    step_seconds: dict[str, float] | None = Field(
        default=None, description="estimated seconds of the job's last step, by what they go into"
    )
    seconds: float | None = Field(default=None, description="estimated, of the whole job")
    expected_seconds: float | None = later(None, description="the same, with failures")
    gpu_hours: float | None = None
    energy_kwh: float | None = Field(default=None, description="GPUs at their power limit")
    price: float | None = Field(default=None, description="GPU-hours × the cluster's price")
    mfu: float | None = Field(
        default=None, description="share of the peak: model FLOPs without recomputation"
    )
    tokens_per_second: float | None = Field(default=None, description="of a GPU")
