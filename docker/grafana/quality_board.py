"""The quality dashboard: do users take what they are given, and would popularity have done as well at that moment."""

from __future__ import annotations

from panels import RED, YELLOW, Board, Panel, Row, number

RATE = "[$__rate_interval]"


def hit_rate(k: int, by: str = "", where: str = "") -> str:
    """Write the lists' hit-rate at k, by some labels."""
    which = f'$where,k="{k}"{where}'
    of = f"sum by ({by}) " if by else "sum"
    return (
        f"{of}(rate(rec_online_hits_total{{{which}}}{RATE})) / "
        f"({of}(rate(rec_online_trials_total{{{which}}}{RATE})) > 0)"
    )


def baseline_rate(k: int, baseline: str, where: str = "") -> str:
    """Write a baseline's hit-rate at k, over the same trials."""
    hits = f'rec_online_baseline_hits_total{{$where,k="{k}",baseline="{baseline}"{where}}}'
    return (
        f"sum(rate({hits}{RATE})) / "
        f'(sum(rate(rec_online_trials_total{{$where,k="{k}"{where}}}{RATE})) > 0)'
    )  # fmt: skip


def beside(title: str, about: str, k: int, where: str = "") -> Panel:
    """Make a panel of the lists' hit-rate beside both baselines'."""
    return Panel(
        title,
        about,
        "percentunit",
        (
            (hit_rate(k, where=where), "lists"),
            (baseline_rate(k, "all_time", where), "popularity, all time"),
            (baseline_rate(k, "24h", where), "popularity, 24 h"),
        ),
    )


def mrr(metric: str, where: str = "") -> str:
    """Write a mean reciprocal rank."""
    return (
        f"sum(rate({metric}{{$where{where}}}{RATE})) / "
        f'(sum(rate(rec_online_trials_total{{$where,k="1"}}{RATE})) > 0)'
    )  # fmt: skip


RECORDED = 'job:rec_online_hit_ratio:rate30m{job=~"$job"}'
RECORDED_POPULARITY = 'job:rec_online_baseline_hit_ratio:rate30m{job=~"$job",baseline="all_time"}'

NOW = Row(
    "Now",
    (
        number("Hit-rate@10, 30 min", "Events whose item is among the first ten of the user's list before.",
               "percentunit", f"max({RECORDED})"),
        number("Popularity, 30 min", "What all-time popularity would have hit at the same moments.", "percentunit",
               f"max({RECORDED_POPULARITY})"),
        number("Lift over popularity", "The hit-rate by all-time popularity's. An alert below 1 for 30 min.", "none",
               f"max({RECORDED}) / max({RECORDED_POPULARITY})", ((1, YELLOW), (1.2, "green")), True),
        number("Events on unknown items", "Share of events on items that the model was not trained on.", "percentunit",
               f"sum(rate(rec_unknown_item_total{{$where}}{RATE})) / "
               f'(sum(rate(rec_events_total{{$where,result="applied"}}{RATE})) > 0)', ((0.05, YELLOW), (0.2, RED))),
        number("Model age", "Since the model in use was trained; the oldest in use counts.", "s",
               "time() - min(rec_model_trained_timestamp_seconds{$where} > 0)"),
        number("Versions in use", "More than one for long: a worker can't fetch or refuses the newest.", "short",
               "count(count by (version) (rec_model_info{$where}))", ((2, YELLOW), (3, RED))),
    ),
)  # fmt: skip

HITS = Row(
    "Do users take what they are given (each list tested by the event after it)",
    (
        beside("Hit-rate@10", "Beside popularity's at the same moments, without what the user had had.", 10),
        beside("Hit-rate@1", "The first place alone.", 1),
        Panel(
            "Mean reciprocal rank@10",
            "1 / place of the item that was taken, 0 beyond the tenth.",
            "none",
            (
                (mrr("rec_online_reciprocal_rank_sum_total"), "lists"),
                (mrr("rec_online_baseline_reciprocal_rank_sum_total", ',baseline="all_time"'), "popularity, all time"),
                (mrr("rec_online_baseline_reciprocal_rank_sum_total", ',baseline="24h"'), "popularity, 24 h"),
            ),
        ),
        beside("Hit-rate@10, first event of a session", "The list had waited since the session before.", 10,
               ',in_session="first"'),
        beside("Hit-rate@10, later in a session", "The list was made by the event just before.", 10,
               ',in_session="later"'),
        Panel("Hit-rate@10 by version", "Of the weights that made the list; \"older\" than the one before.",
              "percentunit", ((hit_rate(10, "version"), "{{version}}"),)),
        Panel("Trials by version", "Events of users who had been given a list before. Few make noisy rates.", "eps",
              ((f'sum by (version) (rate(rec_online_trials_total{{$where,k="10"}}{RATE}))', "{{version}}"),),
              stacked=True),
    ),
)  # fmt: skip

DRIFT = Row(
    "Drift",
    (
        Panel(
            "Popularity drift",
            "Population stability index of the last 24 hours' events beside the training events, in ten parts by "
            "training popularity. Rules of thumb: below 0.1 stable, above 0.25 shifted. Absent below 500 events.",
            "none",
            (("rec_item_distribution_psi{$where}", "{{instance}}"),),
            ((0.1, YELLOW), (0.25, RED)),
        ),
        Panel(
            "Unknown items",
            "Share of events on items that the model was not trained on: they can't be scored before the next model.",
            "percentunit",
            ((f"sum by (instance) (rate(rec_unknown_item_total{{$where}}{RATE})) / "
              f'(sum by (instance) (rate(rec_events_total{{$where,result="applied"}}{RATE})) > 0)', "{{instance}}"),),
            ((0.2, RED),),
        ),
        Panel(
            "Catalogue shown",
            "Share of the model's items in the first ten places of the last 10,000 lists.",
            "percentunit",
            (("rec_catalog_coverage_ratio{$where}", "{{instance}}"),),
            at_most=1.0,
        ),
    ),
)  # fmt: skip

FRESH = Row(
    "Freshness",
    (
        Panel(
            "Age of the newest event and state",
            "Event: by its own time. State: since the broker took the newest event that is stored.",
            "s",
            (("time() - max(rec_event_timestamp_seconds{$where} > 0)", "event"),
             ("time() - max(rec_state_timestamp_seconds{$where} > 0)", "state")),
            at_least=None,
        ),
        Panel(
            "Age of model and catalogue",
            "Model: since it was trained. Catalogue: since the newest event that the model, and so the items that it "
            "knows, were made from.",
            "s",
            (("time() - min(rec_model_trained_timestamp_seconds{$where} > 0)", "model"),
             ("time() - min(rec_model_data_timestamp_seconds{$where} > 0)", "catalogue")),
        ),
        Panel(
            "Items in the catalogue",
            "That the model in use knows.",
            "short",
            (("max(rec_catalogue_items{$where})", "items"),),
        ),
        Panel("Workers by version", "A swap takes a worker a second or so.", "short",
              (("count by (version) (rec_model_info{$where})", "{{version}}"),), stacked=True),
        Panel("Swaps, in an hour", "Refused: a version that does not verify; the one before serves on.", "short",
              (("sum by (result) (increase(rec_model_swaps_total{$where}[1h]))", "{{result}}"),), decimals=0),
        Panel("States made anew", "Users whose hidden state was replayed from history under new weights.", "cps",
              ((f"sum(rate(rec_states_rebuilt_total{{$where}}{RATE}))", "states"),)),
    ),
)  # fmt: skip

BOARD = Board(
    "hrnn-quality",
    "HRNN recommendation quality",
    "Do users take what they are given, and would popularity have done as well at the same moment.",
    "rec_online_trials_total",
    (NOW, HITS, DRIFT, FRESH),
)
