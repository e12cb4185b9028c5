"""The method whose model, the student, learns from a teacher."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ftlib.config.methods.base import ANSWERS, CLASSES, Better, Head, Method, Rows


class Distill(Method):
    """A student learns from a teacher (Hinton et al. 2015, arXiv:1503.02531).

    kind: `logit` matches the teacher's distribution, `feature` its hidden states, `relation` the distances and angles
    between examples, `sequence` its written completions, `self` an earlier generation of the same model (born-again),
    `on_policy` its distribution over the student's own completions, `mutual` its distribution while it learns
    itself, from the labels and from the student (Zhang et al. 2018, arXiv:1706.00384); only the student is kept.
    """

    type: Literal["distill"]
    """Distillation (arXiv:1503.02531): the model, the student, learns from a teacher."""
    kind: Literal["logit", "feature", "relation", "sequence", "self", "on_policy", "mutual"] = "logit"
    """What the student learns: the teacher's distribution over tokens (logit), its hidden states (feature), relations
    between examples (relation), its completions (sequence), an earlier student (self), or its distribution over the
    student's completions (on_policy). With mutual, the teacher learns too."""
    task: Literal["language", "classify"] = "language"
    """language for a student that writes, classify for a student that labels."""
    teacher: str = Field(min_length=1)
    """The teacher: a name on the Hub, a folder, the directory of a trial, or registry:NAME. For kind sequence also the
    URL of an OpenAI-compatible server, https://HOST/v1."""
    teacher_revision: str | None = None
    """The branch, tag or commit of the teacher on the Hub. null is its main branch."""
    temperature: float = Field(default=1.0, gt=0)
    """For kinds logit, self and mutual: the temperature of both distributions. For kind on_policy: also that of
    sampling the student's completions."""
    alpha: float = Field(default=0.5, ge=0, le=1)
    """For kinds logit, self, feature, relation and mutual: the teacher's share of the loss. The cross-entropy of the
    labels has the rest."""
    top_k: int | None = Field(default=64, ge=1)
    """For kinds logit and self with task: language: how many of the teacher's likeliest tokens are kept at each
    position. All other tokens are one more class. null keeps all."""
    layer_map: dict[int, int] | None = None
    """For kind feature: the student's layers and the teacher's layers that they learn, {2: 4, 4: 8}. Both count from 1.
    null spreads the layers evenly."""
    distance_weight: float = Field(default=1.0, ge=0)
    """For kind relation: the weight of the distances between examples."""
    angle_weight: float = Field(default=2.0, ge=0)
    """For kind relation: the weight of the angles between examples."""
    beta: float = Field(default=0.5, ge=0, le=1)
    """For kind on_policy: 0 is the forward KL divergence, 1 is the reverse one, and a value between them is a
    Jensen-Shannon divergence."""
    max_completion_length: int = Field(default=256, ge=1)
    """For kinds sequence and on_policy: the most tokens of a completion."""
    reasoning: bool = False
    """For kind sequence: the teacher is asked for its steps before the answer, and the student learns the steps too."""
    teacher_name: str | None = None
    """For kind sequence with a URL: the name of the model on that server."""
    teacher_api_key_env: str | None = None
    """For kind sequence with a URL: the environment variable that holds the server's key. null sends OPENAI_API_KEY to
    api.openai.com, or to the host of OPENAI_BASE_URL where that is set, and no key to any other host."""

    @property
    def rows(self) -> Rows:
        if self.task == "classify":
            return "labelled"
        return "prompts" if self.kind == "on_policy" else "answers"

    @property
    def head(self) -> Head:
        return "sequence_classification" if self.task == "classify" else "causal_lm"

    @property
    def metrics(self) -> dict[str, Better]:
        """The metrics of the labels alone, as without a teacher. So no key of the distillation changes what they
        mean."""
        return CLASSES if self.task == "classify" else ANSWERS

    @property
    def remote(self) -> bool:
        """Whether the teacher is asked over the network."""
        return self.teacher.startswith(("http://", "https://"))

    @model_validator(mode="after")
    def _teacher_fits_kind(self) -> Distill:
        if self.remote and self.kind != "sequence":
            raise ValueError(f"a teacher at a URL only writes: use kind: sequence, or name a model for '{self.kind}'")
        if self.remote and self.teacher_name is None:
            raise ValueError("teacher is a URL, so teacher_name must say which model is asked there")
        if self.teacher_api_key_env is not None and not self.remote:
            raise ValueError("teacher_api_key_env is for a teacher at a URL, and teacher is none")
        return self

    @model_validator(mode="after")
    def _kind_fits_task(self) -> Distill:
        if self.task == "classify" and self.kind in ("sequence", "on_policy"):
            raise ValueError(f"kind '{self.kind}' needs a model that writes: use logit, feature, relation or self")
        return self
