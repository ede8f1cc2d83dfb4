"""The trainer's dashboard: does it train, how well, and is it allowed to publish."""

from __future__ import annotations

from panels import RED, YELLOW, Board, Panel, Row, number

RATE = "[$__rate_interval]"

NOW = Row(
    "Now",
    (
        number(
            "Trainers up", "Processes that answer a scrape.", "short", 'sum(up{job=~"$job"})', ((1, "green"),), True
        ),
        number(
            "Since the last verdict",
            "Since a run last came to one, be it a model or a rejection. Without new events there is no run.",
            "s",
            "time() - max(rec_train_last_success_timestamp_seconds{$where} > 0)",
        ),
        number(
            "Model age",
            "Of the model that serves, as this trainer sees it.",
            "s",
            "time() - max(rec_model_trained_timestamp_seconds{$where} > 0)",
        ),
        number("Events in the copy", "Of all sessions.", "short", "max(rec_train_events{$where})"),
        number(
            "Events trained on",
            "By the last run, within HRNN_TRAIN_WINDOW_S and HRNN_TRAIN_MAX_EVENTS.",
            "short",
            "max(rec_train_used_events{$where})",
        ),
        number(
            "New events",
            "Since the last run; HRNN_TRAIN_MIN_NEW_EVENTS make one due.",
            "short",
            "max(rec_train_new_events{$where})",
        ),
        number(
            "Left to read",
            "Records of the sessions topic that the copy has yet to read.",
            "short",
            "max(rec_train_lag_records{$where})",
            ((100_000, YELLOW),),
        ),
    ),
)

RUNS = Row(
    "Runs",
    (
        Panel(
            "Runs by result, in an hour",
            "Failed ones are tried again, each time after twice as long. An alert on three in an hour.",
            "short",
            (("sum by (result) (increase(rec_train_runs_total{$where}[1h]))", "{{result}}"),),
            stacked=True,
            decimals=0,
        ),
        Panel(
            "Duration of runs",
            "From reading to publishing, mean of the last hour.",
            "s",
            (("sum(increase(rec_train_duration_seconds_sum{$where}[1h])) / "
              "(sum(increase(rec_train_duration_seconds_count{$where}[1h])) > 0)", "mean"),),
        ),
        Panel("Training loss", "Of the last run: cross entropy, weighted as in training.", "short",
              (("rec_train_loss{$where}", "{{instance}}"),)),
        Panel(
            "Published and rejected, in an hour",
            "A rejected candidate was worse than the model that serves, on what neither had learned from.",
            "short",
            (("sum(increase(rec_models_published_total{$where}[1h]))", "published"),
             ("sum(increase(rec_gate_rejections_total{$where}[1h]))", "rejected")),
            decimals=0,
        ),
        Panel(
            "Since the last verdict, in intervals",
            "Time since a run last came to a verdict, by HRNN_TRAIN_INTERVAL_S. An alert above 3.",
            "none",
            (("(time() - (rec_train_last_success_timestamp_seconds{$where} > 0)) / "
              "clamp_min(rec_train_interval_seconds{$where}, 1)", "{{instance}}"),),
            ((3, RED),),
        ),
        Panel(
            "Age of the copy",
            "Time since the copy of the sessions had last been read to the end.",
            "s",
            (("time() - (rec_train_copy_timestamp_seconds{$where} > 0)", "{{instance}}"),),
        ),
    ),
)  # fmt: skip

GATE = Row(
    "The gate's figures",
    tuple(
        Panel(title, about, unit, ((f'rec_valid{{$where,figure="{figure}"}}', "{{of}}"),))
        for title, about, unit, figure in (
            ("MRR@20 on the newest slice", "What the gate compares.", "none", "mrr_at_20"),
            ("Hit-rate@10 on the newest slice", "Items that a model does not know count as missed.", "percentunit",
             "hit_rate_at_10"),
            ("NDCG@10 on the newest slice", "Over the items that a model knows.", "none", "ndcg_at_10"),
        )
    ),
)  # fmt: skip

DATA = Row(
    "Data",
    (
        Panel("Records read", "From the sessions topic.", "recps",
              ((f"rate(rec_session_records_total{{$where}}{RATE})", "{{instance}}"),)),
        Panel("Records that hold no session", "They are skipped; whoever else writes that topic should not.", "short",
              (("rec_bad_session_records{$where}", "{{instance}}"),), ((1, RED),)),
        Panel("Memory", "Resident.", "bytes", (("process_resident_memory_bytes{$where}", "{{instance}}"),)),
    ),
)  # fmt: skip

BOARD = Board(
    "hrnn-trainer",
    "HRNN trainer",
    "Does it train, how well, and may it publish.",
    "rec_train_runs_total",
    (NOW, RUNS, GATE, DATA),
)
