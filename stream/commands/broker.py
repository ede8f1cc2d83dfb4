"""`hrnn broker`: the local Kafka of the demo and the tests."""

from __future__ import annotations

import signal
import sys
import threading

import typer

from stream.commands.options import note, results


def broker(
    create: bool = typer.Option(True, "--topics/--no-topics", help="Also create the topics of HRNN_TOPIC_PREFIX."),
) -> None:
    """Run a single-node Apache Kafka on this machine until Ctrl-C, then delete its data.

    Use it for tests, not for data that must be kept. The only line on standard output is the address. Then, in another
    terminal:

    export HRNN_KAFKA_BOOTSTRAP=127.0.0.1:PORT

    hrnn worker, hrnn trainer, hrnn produce FILE, hrnn watch, hrnn dead-letters --follow, hrnn doctor

    Any Kafka client works, such as kcat (apt-get install kcat):

    kcat -b 127.0.0.1:PORT -L, kcat -b 127.0.0.1:PORT -C -t recommendations -o end
    """
    from stream.clients.connection import administration
    from stream.clients.topics import create as create_topics
    from stream.clients.topics import wanted
    from stream.commands.environment import read_settings
    from stream.demo.broker import LocalKafka

    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    with LocalKafka(own=True) as kafka:
        if create:
            with administration(kafka.bootstrap) as admin:
                made = create_topics(admin, wanted(admin, read_settings(kafka_bootstrap=kafka.bootstrap)))
            note(f"{len(made)} topics created")
        results(kafka.bootstrap)
        sys.stdout.flush()
        note(f"export HRNN_KAFKA_BOOTSTRAP={kafka.bootstrap}; Ctrl-C stops the broker")
        while not ended.wait(0.5):
            if kafka.pid is None:
                note("the broker ended unexpectedly:")
                note(kafka.log()[-2000:])
                raise typer.Exit(1)
    note("the broker has stopped, its data are deleted")
