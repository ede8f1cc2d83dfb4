"""The trainer's settings, read from the environment (`HRNN_…`)."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from models.items.signals import SignalRules
from models.records import Topics
from models.sessions import SessionRules
from trainer.kafka_access import KafkaAccess


class FittingSettings(BaseSettings):
    """How a model is fitted, in the service and in evaluations. Names of Amazon Personalize's HRNN have its meaning.

    The defaults are for all logs. They were chosen on early parts of a log of news, one of ratings made when films are
    seen and two of ratings in bursts, never on a slice that figures are reported for.

    Personalize does not document `recency_mask`. Here it weighs each event in the loss by 2^(-age / half-life). The age
    is relative to the newest training event, and the half-life is `recency_half_life` x the span of the data. The
    percentiles leave users with fewer or more events out of training, but not out of the signals.
    """

    model_config = SettingsConfigDict(env_prefix="HRNN_", frozen=True, extra="forbid")

    encoder: str = Field(
        default="hrnn",
        description="network from events to a state: hrnn, rnn, hgru, or another of models/encoders/registry.py",
    )
    hidden_dimension: int = Field(
        default=64,
        ge=1,
        description="width of the state; at Personalize's 43 perplexity was 4 to 5 % worse on news and long ratings",
    )
    layers: int = Field(
        default=1,
        ge=1,
        description="number of stacked GRUs; two had equal perplexity on news and 1 to 2 % worse on films, ratings and "
        "baskets",
    )
    bptt: int = Field(default=32, ge=1, description="steps of truncated backpropagation; Personalize's default")
    recency_mask: bool = Field(
        default=False,
        description="weigh recent events more, Personalize's default; live trends already model recency, and the mask "
        "costs examples: perplexity 72 % up on ratings in bursts, 5 % with a half-life of 0.3; on films 8 % up, 2 % "
        "down with 0.3",
    )
    recency_half_life: float = Field(
        default=0.05,
        gt=0,
        description="half-life of the mask as a share of the data's span, for days of news and years of films alike",
    )
    min_user_history_length_percentile: float = Field(
        default=0.0, ge=0, le=1, description="leave users with shorter histories out of training; 0 keeps all"
    )
    max_user_history_length_percentile: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="leave users with longer histories out of training; at Personalize's 0.99, meant against machines, "
        "perplexity was 3 to 7 % worse on news, films, ratings and baskets: the longest histories have many of their "
        "events",
    )
    valid_fraction: float = Field(
        default=0.1, gt=0, le=0.5, description="share of the newest slice, for early stopping and the gate"
    )
    training_mode: Literal["update", "full"] = Field(
        default="update", description="Personalize's names: start from the serving model's weights, or from random ones"
    )
    epochs: int = Field(default=30, ge=1, description="maximum; the newest slice usually stops training after 3 to 12")
    learning_rate: float = Field(
        default=1e-2,
        gt=0,
        description="of AdamW; it need not be small, as averaged weights are kept",
    )
    weight_decay: float = Field(
        default=0.0,
        ge=0,
        description="of the matrices shared by all items, times the learning rate, per step; dropout is enough",
    )
    lanes: int = Field(
        default=32, ge=1, description="histories processed in parallel: fewer leave cores idle, more mean fewer steps"
    )
    dropout: float = Field(
        default=0.2, ge=0, lt=1, description="on inputs and before the output layer, in training only"
    )
    train_max_s: float = Field(
        default=1500.0,
        gt=0,
        description="stops the fit at the next chunk, and the last pass, too, so that both fit into an hourly round; "
        "609,000 events of 11,500 items took 917 s on two busy cores",
    )
    control: bool = Field(default=True, description="feed the gaps between events to the model; false: a plain RNN")
    user_state: Literal["init", "all"] = Field(
        default="init",
        description="of an encoder with sessions (hgru): the user's state starts each session, or is also an input to "
        "each of its steps",
    )
    gap_s: float = Field(
        default=SessionRules.gap_s,
        gt=0,
        description="silence in s that ends a session, for an encoder with sessions; the workers should have the same",
    )
    net: bool = Field(default=True, description="score items from the state; false: states only weigh the signals")
    tied: bool = Field(default=True, description="one matrix for input and output items: half as many weights")
    half_lives_s: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] = Field(
        default=SignalRules.half_lives_s,
        description="half-lives of the trends in s; the workers must have the same, or refuse the model; [] for none",
    )
    successor_half_life_s: float = Field(
        default=SignalRules.successor_half_life_s,
        ge=0,
        description="half-life of the successor counts in s; the workers must have the same; 0: not used",
    )
    neighbours: bool = Field(
        default=True,
        description="use the term of neighbours of the last ten items; without it ndcg@10 was 9 % lower on ratings in "
        "bursts, 4 % on films, 1 % on baskets",
    )
    repeats: bool = Field(
        default=True,
        description="use the term of repeats, by count, age and order: films are seen once, milk is bought each week",
    )
    without_terms: tuple[str, ...] = Field(
        default=(), description="terms of a score to leave out by name, of those that have no setting of their own"
    )
    item_dropout: float = Field(
        default=0.05,
        ge=0,
        lt=1,
        description="share of items that each step treats as new, known by signals only; on news it improved the "
        "perplexity of new items by 1 %, and of the others, too",
    )
    full_softmax_max_items: int = Field(
        default=30_000,
        ge=1,
        description="with more items a step scores a sample. A sample takes a sixth less time at 13,000 items, half at "
        "20,000, but the full softmax is the exact loss",
    )
    sampled_items: int = Field(
        default=8192, ge=1, description="items in such a sample, beside the targets; frequent items are always in it"
    )
    seed: int = Field(default=0, description="the same data, seed and machine give the same weights")
    train_threads: int = Field(default=2, ge=1, description="threads that score the catalogue; the rest uses one")

    @field_validator("encoder")
    @classmethod
    def _registered(cls, name: str) -> str:
        from models.encoders.registry import ENCODERS  # not before it is needed: it loads torch, for a second

        if name not in ENCODERS:
            raise ValueError(f"encoder {name!r} is none of {', '.join(ENCODERS)}")
        return name

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
    """The settings of the trainer service."""

    model_config = SettingsConfigDict(env_prefix="HRNN_", frozen=True, extra="forbid")

    kafka_bootstrap: str = Field(
        default="127.0.0.1:9092", description="Kafka's bootstrap brokers, host:port[,host:port…]"
    )
    topic_prefix: str = Field(default="", description="prefix of all topics; lets several deployments share one Kafka")
    train_interval_s: float = Field(default=3600.0, ge=0, description="time between fits, each of which takes a minute")
    train_min_new_events: int = Field(
        default=1000, ge=1, description="new events before a fit; fewer are too few for the gate: 1 % of hits is 10"
    )
    train_poll_s: float = Field(default=10.0, gt=0, description="interval of reading and counting new events")
    train_window_s: float = Field(
        default=0.0,
        ge=0,
        description="train only on events of this time before the newest; 0: on all, as old events still show taste",
    )
    train_max_events: int = Field(
        default=1_000_000,
        ge=0,
        description="with more events train on a stable sample of users; 0: no limit. The default fits "
        "HRNN_TRAIN_MAX_S with 11,500 items on two cores, and the 4 GiB of the manifests: see `hrnn plan`",
    )
    trainer_dir: Path | None = Field(
        default=None,
        description="folder of the sessions' copy, kept over restarts, and of training curves; none: in memory",
    )
    keep_versions: int = Field(
        default=5, ge=1, description="versions to keep for a rollback; a starting worker reads all of them"
    )
    gate_tolerance: float = Field(
        default=0.02, ge=0, description="a candidate may be worse by this share of the serving model's MRR"
    )
    asking_gap_s: float = Field(
        default=0.0, ge=0, description="time from an event to the use of its list; the same as the workers'"
    )
    metrics_bind: str = Field(default="127.0.0.1", description="address of the metrics server; loopback unless set")
    metrics_port: int = Field(
        default=9109, ge=0, le=65535, description="port of the metrics server; 0: any free one, logged"
    )
    fitting: FittingSettings = Field(
        default_factory=lambda: FittingSettings(), description="read from the same environment"
    )

    @property
    def topics(self) -> Topics:
        """Return this deployment's topics."""
        return Topics(self.topic_prefix)

    def client_options(self) -> dict[str, Any]:
        """Return the options of the trainer's Kafka clients."""
        return {
            "bootstrap_servers": self.kafka_bootstrap.split(","),
            "client_id": f"hrnn-trainer-{socket.gethostname()}",
            **self.access_options(),
        }
