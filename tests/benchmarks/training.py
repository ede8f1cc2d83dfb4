"""How fast a fit goes through events, beside what the machine's own matrix products could do.

    python -m tests.benchmarks.training [--events 60000] [--items 1700] [--threads 2] [--hidden 64]

A synthetic log goes through the very code that trains: signals, full softmax, gradients, Adam. Epochs and plain
products of the loss's shapes take turns in one run, so that whoever else uses the machine slows both. Medians.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from models.records import Event
from trainer.data.histories import Histories, from_events
from trainer.fitting.course import Course
from trainer.fitting.descent import Descent
from trainer.settings import FittingSettings

TURNS = 5  # of an epoch and of products
PRODUCTS = 40  # a turn: some tenths of a second
BLOCK = 1024  # rows, which is what 32 lanes of 32 steps have


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=60_000)
    parser.add_argument("--items", type=int, default=1_700)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--hidden", type=int, default=64)
    given = parser.parse_args()
    torch.set_num_threads(1)
    histories = _log(given.events, given.items)
    settings = FittingSettings(hidden_dimension=given.hidden, train_threads=given.threads)
    begun = time.process_time()
    course = Course(histories, math.inf, settings, None)
    prepared = time.process_time() - begun
    part = course.training_part(math.inf)
    descent = Descent(course.model, settings.learning_rate, course.steps(part))
    rng = np.random.default_rng(0)
    asked = int((part.weights > 0).sum())
    course.epoch(part, descent, rng, lambda: False)  # the first touches all memory
    walls, seconds, rates = [], [], []
    for _ in range(TURNS):
        wall, used = time.perf_counter(), time.process_time()
        course.epoch(part, descent, rng, lambda: False)
        walls.append(time.perf_counter() - wall)
        seconds.append(time.process_time() - used)
        rates.append(_sgemm(given.hidden, given.items, given.threads))
    wall, used = statistics.median(walls), statistics.median(seconds)
    n_items = len(course.catalogue.item_ids)
    needed = 3 * 2 * n_items * given.hidden  # scores, and the gradients of queries and of the matrix
    by_wall, by_processor = (
        statistics.median(asked * needed / taken / rate[clock] for taken, rate in zip(times, rates, strict=True))
        for clock, times in enumerate((walls, seconds))
    )
    sgemm = [statistics.median(rate[clock] for rate in rates) / 1e9 for clock in (0, 1)]
    sys.stdout.write(
        f"{asked} targets, {n_items} items, {given.hidden} units, {given.threads} threads\n"
        f"signals: {prepared / histories.n_events * 1e6:.0f} us of processor an event, once a log\n"
        f"an epoch: {asked / wall:,.0f} events/s, {used / asked * 1e6:.1f} us of processor an event\n"
        f"sgemm of the loss's shapes: {sgemm[0]:.0f} GFLOP/s, {sgemm[1]:.0f} a second of processor\n"
        f"its three products in an epoch: {by_wall:.0%} of that rate, {by_processor:.0%} by the processor's time\n"
    )


def _log(n_events: int, n_items: int) -> Histories:
    """Draw a log: items by Zipf's law, users who come back, one event every 200 s or so."""
    rng = np.random.default_rng(0)
    share = 1 / np.arange(1.0, n_items + 1)
    items = rng.choice(n_items, n_events, p=share / share.sum())
    users = rng.integers(n_events // 66, size=n_events)
    times = np.cumsum(rng.exponential(200.0, n_events))
    return from_events(
        [Event(f"u{user}", f"i{item}", float(t)) for user, item, t in zip(users, items, times, strict=True)]
    )


def _sgemm(hidden: int, n_items: int, threads: int) -> tuple[float, float]:
    """Measure the machine's products at the loss's shapes -> operations a second, and a second of processor.

    In threads of our own, as the loss has them: torch's spin while they wait for one another, on a shared machine for
    most of their time.
    """
    begun, used = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(threads, initializer=lambda: torch.set_num_threads(1)) as pool:
        done = sum(pool.map(_products, [hidden] * threads, [n_items] * threads))
    return done / (time.perf_counter() - begun), done / (time.process_time() - used)


def _products(hidden: int, n_items: int) -> int:
    states, matrix = torch.randn(BLOCK, hidden), torch.randn(n_items, hidden)
    scores, of_states, of_matrix = torch.empty(BLOCK, n_items), torch.empty_like(states), torch.empty_like(matrix)
    for _ in range(PRODUCTS):
        torch.mm(states, matrix.T, out=scores)
        torch.mm(scores, matrix, out=of_states)
        torch.mm(scores.T, states, out=of_matrix)
    return PRODUCTS * 3 * 2 * BLOCK * n_items * hidden


if __name__ == "__main__":
    main()
