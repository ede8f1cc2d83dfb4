"""`hrnn broker`: the local Kafka of demo and tests, alone."""

from __future__ import annotations

import signal
import sys
import threading

import typer

from stream.commands.options import note, results


def broker(
    create: bool = typer.Option(True, "--topics/--no-topics", help="Create the topics of HRNN_TOPIC_PREFIX, too."),
) -> None:
    """Start a single-node Apache Kafka on this machine and keep it until Ctrl-C; its data go with it.

    For trying things out, not for anything that must be kept. The address is printed, and is the only line on standard
    output. With it, in another terminal:

    export HRNN_KAFKA_BOOTSTRAP=127.0.0.1:PORT

    hrnn worker, hrnn trainer, hrnn produce FILE, hrnn watch, hrnn dead-letters --follow, hrnn doctor

    Any Kafka client will do as well, such as kcat (apt-get install kcat):

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
        note(f"export HRNN_KAFKA_BOOTSTRAP={kafka.bootstrap}; Ctrl-C ends it")
        while not ended.wait(0.5):
            if kafka.pid is None:
                note("the broker ended by itself:")
                note(kafka.log()[-2000:])
                raise typer.Exit(1)
    note("the broker has ended, its data are deleted")
