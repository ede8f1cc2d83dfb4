"""What the trainer can be told, read from the environment (`HRNN_…`)."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from models.items.signals import SignalRules
from models.records import Topics
from trainer.kafka_access import KafkaAccess


class FittingSettings(BaseSettings):
    """How a model is fitted, by the service and in evaluations alike. Names that Amazon Personalize's HRNN has too
    mean what they mean there.

    One set for all logs, chosen on early parts of a log of news, one of ratings as films are seen and two of ratings
    in bursts; never on a slice that figures are reported of.

    What `recency_mask` does at Personalize is said nowhere but in its name. Here it weighs each event in the loss by
    2^(-age / half-life), age counted back from the newest event that is learned from, the half-life being
    `recency_half_life` x the span of the data. The percentiles leave out of training, not out of the signals, whoever
    has fewer events than that share of the users have, or more.
    """

    model_config = SettingsConfigDict(env_prefix="HRNN_", frozen=True, extra="forbid")

    hidden_dimension: int = Field(
        default=64,
        ge=1,
        description="at Personalize's 43 perplexity was 4 to 5 % worse on news and ratings of years, else the same",
    )
    layers: int = Field(
        default=1,
        ge=1,
        description="GRUs, each reading the states of the one below: two were equal on news, and 1 to 2 % worse by "
        "perplexity on films, ratings and baskets",
    )
    bptt: int = Field(default=32, ge=1, description="Personalize's default: steps that an error is carried back")
    recency_mask: bool = Field(
        default=False,
        description="weigh recent events more, as Personalize does by default: here live trends say what is recent, "
        "and the mask costs examples: perplexity 72 % up on ratings in bursts, 5 % with 0.3; on films 8 % up, "
        "2 % down with 0.3",
    )
    recency_half_life: float = Field(
        default=0.05,
        gt=0,
        description="of the mask: as a share of the data's span, which fits days of news as well as years of films",
    )
    min_user_history_length_percentile: float = Field(
        default=0.0, ge=0, le=1, description="leave users with shorter histories out of training; 0 keeps all"
    )
    max_user_history_length_percentile: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="leave users with longer ones out; at Personalize's 0.99, against machines, perplexity was 3 to 7 "
        "% worse on news, films, ratings and baskets, whose events are to a large part of the longest histories",
    )
    valid_fraction: float = Field(
        default=0.1, gt=0, le=0.5, description="the newest slice, which training stops and the gate decides by"
    )
    training_mode: Literal["update", "full"] = Field(
        default="update", description="Personalize's names: begin with the serving model's weights, or with random ones"
    )
    epochs: int = Field(
        default=30, ge=1, description="at the most; the newest slice tells when to stop, after 3 to 12 mostly"
    )
    learning_rate: float = Field(
        default=1e-2,
        gt=0,
        description="for AdamW; the mean of the last weights is what is kept, so it need not be small",
    )
    weight_decay: float = Field(
        default=0.0,
        ge=0,
        description="of the matrices that all items share, times the rate, a step: dropout holds back enough",
    )
    lanes: int = Field(
        default=32, ge=1, description="histories walked side by side: fewer leave the cores idle, more are fewer steps"
    )
    dropout: float = Field(
        default=0.2, ge=0, lt=1, description="on inputs and before the output layer, in training only"
    )
    train_max_s: float = Field(
        default=1500.0,
        gt=0,
        description="ends the fit at the next chunk, and the last pass likewise: both fit into an hourly round. What a "
        "fit that it ends comes to depends on the machine; 609,000 events of 11,500 items took 917 s on two busy cores",
    )
    control: bool = Field(default=True, description="tell the model how long silences were; without it is a plain RNN")
    net: bool = Field(default=True, description="items' scores from the state; without, states only weigh the signals")
    tied: bool = Field(
        default=True, description="one matrix for what items say and for what they answer: half as much to learn"
    )
    half_lives_s: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] = Field(
        default=SignalRules.half_lives_s,
        description="of live trends, seconds; the workers' own setting, or their models are refused; [] for no trends",
    )
    successor_half_life_s: float = Field(
        default=SignalRules.successor_half_life_s,
        ge=0,
        description="of what follows what, seconds; likewise the workers' own; 0: not used",
    )
    neighbours: bool = Field(
        default=True,
        description="a weight for what keeps company with the last ten items, held against how often each occurs: "
        "without, ndcg@10 was 9 % lower on ratings in bursts, 4 % on films, 1 % on baskets",
    )
    repeats: bool = Field(
        default=True,
        description="weights for what the user has had, how often, when and after what: films are seen once, milk is "
        "bought each week",
    )
    without_terms: tuple[str, ...] = Field(
        default=(), description="terms of a score to leave out by name, of those that have no setting of their own"
    )
    item_dropout: float = Field(
        default=0.05,
        ge=0,
        lt=1,
        description="share of items that each step takes for new ones, which signals alone tell of: new items' "
        "perplexity on news was 1 % better, the others' too",
    )
    full_softmax_max_items: int = Field(
        default=30_000,
        ge=1,
        description="beyond, a step scores a sample: three products with all items take its time. At 13,000 items a "
        "sample takes a sixth less of it, at 20,000 half; but all are what is asked for",
    )
    sampled_items: int = Field(
        default=8192, ge=1, description="that such a step scores, right answers on top; frequent ones always are in"
    )
    seed: int = Field(default=0, description="same data, same seed, same machine: same weights")
    train_threads: int = Field(default=2, ge=1, description="score the catalogue; what else a fit does runs in one")

    @model_validator(mode="after")
    def _percentiles_in_order(self) -> FittingSettings:
        if self.min_user_history_length_percentile >= self.max_user_history_length_percentile:
            raise ValueError("min_user_history_length_percentile is not below the max: no user would be left")
        return self

    @property
    def terms_left_out(self) -> set[str]:
        """Name the terms that no score has; half-lives leave out others, which then have nothing to read."""
        on = {"taste": self.net, "neighbours": self.neighbours, "repeats": self.repeats, "evicted": self.repeats}
        return {*self.without_terms, *(name for name, is_on in on.items() if not is_on)}


class TrainerSettings(KafkaAccess):
    """Where the trainer reads and publishes, and when."""

    model_config = SettingsConfigDict(env_prefix="HRNN_", frozen=True, extra="forbid")

    kafka_bootstrap: str = Field(default="127.0.0.1:9092", description="brokers to begin with, host:port[,host:port…]")
    topic_prefix: str = Field(default="", description="lets several deployments share one Kafka")
    train_interval_s: float = Field(
        default=3600.0, ge=0, description="one hour: a fit takes a minute, popularity moves"
    )
    train_min_new_events: int = Field(default=1000, ge=1, description="fewer tell the gate nothing: 1 % of hits is 10")
    train_poll_s: float = Field(default=10.0, gt=0, description="how often new events are fetched and counted")
    train_window_s: float = Field(
        default=0.0,
        ge=0,
        description="train on the events of this time before the newest only; 0: on all, for films of years ago still "
        "tell of taste, and how fast a catalogue ages is for its owner to say",
    )
    train_max_events: int = Field(
        default=1_000_000,
        ge=0,
        description="beyond, train on a sample of users, always the same ones; 0: no limit. What HRNN_TRAIN_MAX_S is "
        "enough for with 11,500 items on two cores, and what fits the 4 GiB of the manifests: see `hrnn plan`",
    )
    trainer_dir: Path | None = Field(
        default=None,
        description="keeps the copy of the sessions over restarts, and curves of fits; none keeps it in memory",
    )
    keep_versions: int = Field(default=5, ge=1, description="versions to roll back to; each costs every worker's start")
    gate_tolerance: float = Field(
        default=0.02, ge=0, description="share of the serving model's MRR that a candidate may fall short by"
    )
    asking_gap_s: float = Field(
        default=0.0, ge=0, description="the worker's own setting: how long after an event its list is looked at"
    )
    metrics_bind: str = Field(
        default="127.0.0.1", description="metrics are for the operator: not every interface by default"
    )
    metrics_port: int = Field(default=9109, ge=0, le=65535, description="beside the worker's 9108; 0: any free port")
    fitting: FittingSettings = Field(
        default_factory=lambda: FittingSettings(), description="read from the same environment"
    )

    @property
    def topics(self) -> Topics:
        """Return this deployment's topics."""
        return Topics(self.topic_prefix)

    def client_options(self) -> dict[str, Any]:
        """Return what every Kafka client of the trainer is made with."""
        return {
            "bootstrap_servers": self.kafka_bootstrap.split(","),
            "client_id": f"hrnn-trainer-{socket.gethostname()}",
            **self.access_options(),
        }
