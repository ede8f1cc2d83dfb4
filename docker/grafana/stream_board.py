"""The stream's dashboard: is it up, is it keeping up, and if not, where the time goes."""

from __future__ import annotations

from panels import RED, YELLOW, Board, Panel, Row, number

RATE = "[$__rate_interval]"

NOW = Row(
    "Now",
    (
        number("Workers up", "Processes that answer a scrape.", "short", 'sum(up{job=~"$job"})', ((1, "green"),), True),
        number(
            "Alerts firing",
            "What they mean: k8s/alerts.md.",
            "short",
            'count(ALERTS{service="hrnn-stream",alertstate="firing"}) or vector(0)',
            ((1, RED),),
        ),
        number(
            "Events",
            "Events finished, whatever became of them.",
            "eps",
            f"sum(rate(rec_events_total{{$where}}{RATE}))",
        ),
        number(
            "Lag",
            "Age of the oldest partition's last finished event, while it has others waiting. An alert above 60 s.",
            "s",
            "max(rec_consumer_lag_seconds{$where})",
            ((10, YELLOW), (60, RED)),
        ),
        number(
            "Latency p99",
            "From the broker's timestamp of an event to the ack of its list. The objective is 99 % within 1 s.",
            "s",
            f"histogram_quantile(0.99, sum by (le) (rate(rec_end_to_end_latency_seconds_bucket{{$where}}{RATE})))",
            ((0.5, YELLOW), (1, RED)),
        ),
        number(
            "Open sessions",
            "Users whose session may go on. After a restart it is right once one session gap has passed.",
            "short",
            "sum(rec_sessions_active{$where})",
        ),
    ),
)

TRAFFIC = Row(
    "Traffic",
    (
        Panel(
            "Events by result",
            "Duplicates are events delivered again; late and invalid ones are dead letters.",
            "eps",
            ((f"sum by (result) (rate(rec_events_total{{$where}}{RATE}))", "{{result}}"),),
            stacked=True,
        ),
        Panel(
            "Lists by source",
            "Fallback lists are of what is popular: no model has been published yet.",
            "eps",
            ((f"sum by (source) (rate(rec_recommendations_total{{$where}}{RATE}))", "{{source}}"),),
            stacked=True,
        ),
        Panel(
            "Requests by result",
            "Lists that were asked for without an event.",
            "eps",
            ((f"sum by (result) (rate(rec_requests_total{{$where}}{RATE}))", "{{result}}"),),
        ),
        Panel(
            "Dead letters by reason",
            "Records refused. An alert when they are more than 0.1 % of all.",
            "eps",
            ((f"sum by (reason) (rate(rec_dead_letters_total{{$where}}{RATE}))", "{{reason}}"),),
        ),
        Panel(
            "Sessions closed",
            "Sessions that a later event showed to be over.",
            "eps",
            ((f"sum by (reason) (rate(rec_sessions_closed_total{{$where}}{RATE}))", "{{reason}}"),),
        ),
        Panel(
            "Open sessions by worker",
            "Users whose session may go on, by who has their partition.",
            "short",
            (("sum by (instance) (rec_sessions_active{$where})", "{{instance}}"),),
            stacked=True,
        ),
        Panel(
            "Events sent on",
            "Events that came to another partition than their user's: of producers without keys, for one.",
            "eps",
            ((f"sum by (instance) (rate(rec_forwarded_events_total{{$where}}{RATE}))", "{{instance}}"),),
        ),
    ),
)  # fmt: skip

LATENCY = Row(
    "Latency",
    (
        Panel(
            "End to end",
            "From the broker's timestamp of an event to the ack of its list.",
            "s",
            tuple(
                (f"histogram_quantile({q}, sum by (le) (rate(rec_end_to_end_latency_seconds_bucket{{$where}}{RATE})))",
                 f"p{q * 100:g}")
                for q in (0.5, 0.95, 0.99)
            ),
            ((1, RED),),
        ),
        Panel(
            "Requests",
            "From the broker's timestamp of a request to the ack of its list.",
            "s",
            tuple(
                (f"histogram_quantile({q}, sum by (le) (rate(rec_request_latency_seconds_bucket{{$where}}{RATE})))",
                 f"p{q * 100:g}")
                for q in (0.5, 0.95, 0.99)
            ),
            ((1, RED),),
        ),
        Panel(
            "Slower than the objective",
            "Share of lists that took more than 1 s; the budget is 1 %. Alerts at 14.4 and 6 times that.",
            "percentunit",
            (
                ('job:rec_end_to_end_slow:ratio_rate5m{job=~"$job"}', "{{job}} 5 min"),
                ('job:rec_end_to_end_slow:ratio_rate1h{job=~"$job"}', "{{job}} 1 h"),
            ),
            ((0.01, YELLOW), (0.144, RED)),
            at_most=1.0,
        ),
        Panel(
            "Stages",
            "Mean time of a batch in each stage: decide (scores), send (store and queue), ack (the broker).",
            "s",
            ((f"sum by (stage) (rate(rec_stage_duration_seconds_sum{{$where}}{RATE})) / "
              f"sum by (stage) (rate(rec_stage_duration_seconds_count{{$where}}{RATE}))", "{{stage}}"),),
        ),
        Panel(
            "Batch size",
            "Events decided together. Batches grow with the lag, up to HRNN_MAX_POLL_RECORDS a partition.",
            "short",
            ((f"sum(rate(rec_batch_size_sum{{$where}}{RATE})) / sum(rate(rec_batch_size_count{{$where}}{RATE}))",
              "mean"),
             (f"histogram_quantile(0.99, sum by (le) (rate(rec_batch_size_bucket{{$where}}{RATE})))", "p99")),
        ),
        Panel(
            "Lag in records",
            "Records not finished yet, by partition.",
            "short",
            (("max by (topic, partition) (rec_consumer_lag_records{$where})", "{{topic}}/{{partition}}"),),
        ),
        Panel(
            "Lag in seconds",
            "Age of the last finished record, by partition, while there is lag. An alert above 60 s and rising.",
            "s",
            (("max by (topic, partition) (rec_consumer_lag_seconds{$where})", "{{topic}}/{{partition}}"),),
            ((60, RED),),
        ),
    ),
)  # fmt: skip

STATE = Row(
    "State and recovery",
    (
        Panel(
            "Workers by state",
            "Waiting: no partition assigned, or the models topic not read yet. An alert after 10 min of restoring.",
            "short",
            (("sum by (state) (rec_recovery_state{$where})", "{{state}}"),),
            stacked=True,
        ),
        Panel(
            "Left to restore",
            "Changelog records that a restore has yet to read.",
            "short",
            (("rec_restore_remaining_records{$where}", "{{instance}}"),),
        ),
        Panel(
            "Restores",
            "Mean time from a rebalance to ready, of the restores in the last hour.",
            "s",
            (("sum by (instance) (increase(rec_restore_duration_seconds_sum{$where}[1h])) / "
              "(sum by (instance) (increase(rec_restore_duration_seconds_count{$where}[1h])) > 0) or "
              "sum by (instance) (rec_restore_duration_seconds_sum{$where}) / "
              "sum by (instance) (rec_restore_duration_seconds_count{$where})", "{{instance}}"),),
            ((600, RED),),
        ),
        Panel(
            "Size of a user's state",
            "As stored, by its encoded bytes.",
            "bytes",
            tuple((f"histogram_quantile({q}, sum by (le) (rate(rec_state_bytes_bucket{{$where}}{RATE})))",
                   f"p{q * 100:g}") for q in (0.5, 0.99)),
        ),
        Panel(
            "Volume in use",
            "Share of the volume that the stores are on. An alert above 80 %.",
            "percentunit",
            (("1 - rec_data_volume_available_bytes{$where} / rec_data_volume_size_bytes{$where}", "{{instance}}"),),
            ((0.8, RED),),
            at_most=1.0,
        ),
        Panel(
            "What should not happen",
            "Batches read again, producer errors, writes of a worker that had lost its partitions, holes in the log, "
            "stores that were damaged or could not be written, records that could not be read, logs that began again.",
            "short",
            tuple((f"sum(increase({name}{{$where}}{RATE}))", legend) for name, legend in (
                ("rec_batches_given_back_total", "batches given back"),
                ("rec_producer_errors_total", "producer errors"),
                ("rec_foreign_changelog_records_total", "foreign changelog records"),
                ("rec_log_holes_total", "holes in the log"),
                ("rec_store_failures_total", "stores that failed"),
                ("rec_unreadable_records_total", "unreadable records"),
                ("rec_topic_recreated_total", "topics re-created"),
                ("rec_log_shorter_total", "logs shorter than read"),
            )),
            decimals=0,
        ),
        Panel(
            "Source topics",
            "Source topics that do not exist, and partitions of interactions and requests that keep no states.",
            "short",
            (
                ("max(rec_source_topics_missing{$where})", "topics missing"),
                ("max(rec_added_partitions{$where})", "partitions added"),
            ),
            decimals=0,
        ),
    ),
)  # fmt: skip

ITEMS = Row(
    "Item signals",
    (
        Panel(
            "Transitions by result",
            "What the item stage made of what followed what.",
            "eps",
            ((f"sum by (result) (rate(rec_transitions_total{{$where}}{RATE}))", "{{result}}"),),
            stacked=True,
        ),
        Panel(
            "Items tracked",
            "Items with live signals, by who has their partition.",
            "short",
            (("sum by (instance) (rec_items_tracked{$where})", "{{instance}}"),),
            stacked=True,
        ),
        Panel(
            "Items with facts",
            "What the items topic says something of, and how many of these lists leave out. Equal for all workers.",
            "short",
            (
                ("rec_items_known{$where}", "{{instance}} known"),
                ("rec_items_unavailable{$where}", "{{instance}} unavailable"),
            ),
        ),
        Panel(
            "Age of the signals",
            "Of the snapshot that lists are made with. An alert above 5 min.",
            "s",
            (("rec_signals_age_seconds{$where}", "{{instance}}"),),
            ((300, RED),),
        ),
        Panel(
            "Signals sent out",
            "Items whose signals went out on the signals topic.",
            "eps",
            ((f"sum by (instance) (rate(rec_signals_emitted_total{{$where}}{RATE}))", "{{instance}}"),),
        ),
    ),
)

PROCESSES = Row(
    "Processes",
    (
        Panel("Processor", "Cores in use.", "short",
              ((f"rate(process_cpu_seconds_total{{$where}}{RATE})", "{{instance}}"),)),
        Panel("Memory", "Resident.", "bytes", (("process_resident_memory_bytes{$where}", "{{instance}}"),)),
        Panel("Open files", "RocksDB's and Kafka's connections.", "short",
              (("process_open_fds{$where}", "{{instance}}"),)),
    ),
)  # fmt: skip

BOARD = Board(
    "hrnn-stream",
    "HRNN stream",
    "Is the stream up and keeping up, and if not, where the time goes.",
    "rec_events_total",
    (NOW, TRAFFIC, LATENCY, STATE, ITEMS, PROCESSES),
)
