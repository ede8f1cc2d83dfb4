from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.catalogue import Catalogue
from models.encoders.hrnn import HRNNConfig
from models.items.signal_table import NEIGHBOUR_ITEMS, SignalTable
from models.terms import evicted, repeats, successors
from models.users import earlier
from tests.unit.trainer.logs import drawn
from trainer.data import signal_log, user_batches
from trainer.data.histories import Histories, from_events
from trainer.fitting.encoding import build_catalogue
from trainer.fitting.known_signals import Among
from trainer.fitting.losses import CatalogueCrossEntropy, Sample
from trainer.fitting.signal_replay import SignalReplay

CPU = torch.device("cpu")


def replayed(
    seed: int, n_events: int, known: float = 1.0, device: torch.device = CPU
) -> tuple[Histories, Catalogue, HRNNConfig, SignalReplay]:
    histories = from_events(drawn(seed, n_events))
    catalogue = build_catalogue(histories, histories.order[: max(1, int(n_events * known))])
    config = HRNNConfig(
        len(catalogue.item_ids),
        hidden_dimension=5,
        half_lives_s=(3600.0, 86400.0),
        successor_half_life_s=86400.0,
        terms=("taste", "trends", "successors", "neighbours", "repeats", "evicted"),
    )
    return histories, catalogue, config, SignalReplay(histories, catalogue, config, device)


@settings(deadline=None, max_examples=30)
@given(
    st.integers(0, 10**6),
    st.integers(2, 120),
    st.sampled_from([1.0, 0.5]),
    st.integers(1, 40),
    st.sampled_from([(100, 500), (8, 4)]),
)
def test_each_event_sees_what_the_stream_knew_before_it(
    seed: int, n: int, known: float, stride: int, kept: tuple[int, int]
) -> None:
    history_events, earlier_items = kept
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signal_log, "SHORTEST", stride)
        patch.setattr(user_batches, "HISTORY_EVENTS", history_events)
        patch.setattr(user_batches, "EARLIER_ITEMS", earlier_items)
        histories, catalogue, config, replay = replayed(seed, n, known)
        read = replay.read(torch.arange(n))
    assert config.signal_rules is not None
    # what the stream counts does not depend on what a model knows: items that it does not know count, too
    table = SignalTable(config.signal_rules, histories.item_ids)
    shown = np.array([table.row(item_id) for item_id in catalogue.item_ids])
    last: dict[int, list[tuple[int, float]]] = {}
    for event in histories.order.tolist():
        t, row = histories.times[event], int(histories.items[event]) + 1
        before = last.setdefault(histories.users[event], [])
        assert read.dense[event].numpy() == pytest.approx(table.trends(t)[:, shown], abs=1e-5)
        dense = [torch.zeros(config.n_items, values.shape[2]) for _, values in read.sparse]
        for said, (columns, values) in zip(dense, read.sparse, strict=True):
            said.scatter_add_(0, columns[event][:, None].expand(-1, values.shape[2]), values[event])
        looked_up = table.look_up([[row for row, _ in before[-NEIGHBOUR_ITEMS:]]], [t])
        rows_then, values_then = table.successors(looked_up)
        followers = np.zeros((table.n_rows, successors.PARTS))
        followers[rows_then[0]] = successors.Successors(config).complete(values_then)[0]
        assert dense[0].numpy() == pytest.approx(followers[shown], rel=4e-3)  # kept as float16
        neighbours = np.zeros((table.n_rows, 1))
        rows_then, values_then = table.neighbours(looked_up)
        neighbours[rows_then[0]] = values_then[0]
        assert dense[1].numpy() == pytest.approx(neighbours[shown], rel=4e-3)
        had = np.zeros((table.n_rows, repeats.PARTS))
        if before:
            rows, times = np.array([before[-history_events:]]).transpose(2, 0, 1)
            # items that the model does not know count among the events, but nothing is said of them
            rows = np.where(np.isin(rows, shown), rows, 0).astype(np.int64)
            np.add.at(had, rows[0], repeats.parts(rows, np.array([rows.shape[1]]), times, np.array([t]))[0])
        assert dense[2].numpy() == pytest.approx(had[shown])
        fallen = earlier.fold({}, [str(row) for row, _ in before[:-history_events]], earlier_items)
        had_before = np.zeros((table.n_rows, evicted.PARTS))
        fallen_rows = [int(row) for row in fallen]
        had_before[fallen_rows] = evicted.parts(np.array([fallen_rows]), np.array([list(fallen.values())]))[0]
        assert dense[3].numpy() == pytest.approx(had_before[shown])
        table.follow([row for row, _ in before[-3:]], row, t)
        table.occur(row, t)
        before.append((row, t))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6), st.integers(2, 100), st.sets(st.integers(0, 11), min_size=1))
def test_some_columns_are_what_all_say_of_them(seed: int, n: int, chosen: set[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signal_log, "SHORTEST", 20)
        _, _, config, replay = replayed(seed, n)
    columns = torch.tensor(sorted({column % config.n_items for column in chosen}))
    everything = replay.read(torch.arange(n))
    some = replay.read(torch.arange(n), among=Among.of(columns, config.n_items))
    torch.testing.assert_close(some.dense, everything.dense[:, :, columns])
    mixture = torch.rand(n, config.term_set.n_mixed)
    scores, all_scores = torch.zeros(n, len(columns)), torch.zeros(n, config.n_items)
    some.add_to(scores, mixture)
    everything.add_to(all_scores, mixture)
    torch.testing.assert_close(scores, all_scores[:, columns])


def test_what_comes_later_changes_nothing_before() -> None:
    events = drawn(3, 80)
    whole, part = from_events(events), from_events(events[:50])
    catalogue = build_catalogue(whole, whole.order)
    config = HRNNConfig(
        len(catalogue.item_ids),
        half_lives_s=(3600.0,),
        successor_half_life_s=3600.0,
        terms=("trends", "successors", "repeats"),
    )
    reads = []
    for histories in (whole, part):
        replay = SignalReplay(histories, catalogue, config, CPU)
        reads.append(replay.read(torch.from_numpy(histories.order[:50])))
    assert torch.equal(reads[0].dense, reads[1].dense)
    for (columns, values), (others, other_values) in zip(reads[0].sparse, reads[1].sparse, strict=True):
        for part in range(values.shape[2]):
            sums = [
                torch.zeros(50, config.n_items).scatter_add_(1, c, v[:, :, part])
                for c, v in ((columns, values), (others, other_values))
            ]
            assert torch.equal(*sums)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_loss_and_its_gradients_are_autograds(threads: int) -> None:
    histories, catalogue, config, replay = replayed(1, 60)
    rows = catalogue.rows(histories.item_ids)[histories.items]
    torch.manual_seed(0)
    events = torch.arange(1, 60)[torch.from_numpy(rows[1:] > 0)]
    width = config.term_set.n_mixed
    given = [torch.randn(len(events), 5), torch.randn(len(events), width), torch.randn(config.n_items, 5)]
    given.append(torch.randn(config.n_items))
    weights = torch.rand(len(events))
    target = torch.from_numpy(rows)[events] - 1

    def gradients(fused: bool) -> list[torch.Tensor]:
        leaves = [tensor.clone().requires_grad_() for tensor in given]
        queries, mixture, matrix, bias = leaves
        if fused:
            entropy = CatalogueCrossEntropy(threads)
            loss = entropy(*leaves, entropy.prepare(target, weights, events, replay).result())
        else:
            known = replay.read(events)
            scores = queries @ matrix.T + bias + (mixture[:, : config.term_set.n_dense, None] * known.dense).sum(1)
            begin = config.term_set.n_dense
            for columns, values in known.sparse:
                for part in values.unbind(2):
                    scores = scores.scatter_add(1, columns, part * mixture[:, begin, None])
                    begin += 1
            loss = (torch.nn.functional.cross_entropy(scores, target, reduction="none") * weights).sum()
        loss.backward()
        return [loss.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]

    for own, plain in zip(gradients(True), gradients(False), strict=True):
        assert torch.allclose(own, plain, atol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is here")
@pytest.mark.parametrize("sampled", [False, True])
def test_a_gpu_comes_to_the_same_loss_and_gradients_but_for_bf16(sampled: bool) -> None:
    histories, catalogue, config, _ = replayed(1, 500)
    rows = torch.from_numpy(catalogue.rows(histories.item_ids)[histories.items])
    torch.manual_seed(0)
    events = torch.randperm(499)[:200] + 1
    width, n_items = config.term_set.n_mixed, config.n_items
    given = [torch.randn(200, 5), torch.randn(200, width), torch.randn(n_items, 5), torch.randn(n_items)]
    target, weights, correction = rows[events] - 1, torch.rand(200), torch.rand(n_items)
    some = target < n_items - 2

    def gradients(device: torch.device) -> list[torch.Tensor]:
        replay = replayed(1, 500, device=device)[3]
        leaves = [tensor.to(device, copy=True).requires_grad_() for tensor in given]
        queries, mixture, matrix, bias = leaves
        of, sample = torch.ones_like(some), None
        if sampled:
            columns = torch.arange(n_items - 2, device=device)
            sample = Sample(Among.of(columns, n_items), correction[:-2].to(device))
            matrix, bias, of = matrix[columns], bias[columns], some
        entropy = CatalogueCrossEntropy(2)
        asked = entropy.prepare(*(tensor[of].to(device) for tensor in (target, weights, events)), replay).result()
        loss = entropy(queries[of.to(device)], mixture[of.to(device)], matrix, bias, asked, sample)
        loss.backward()
        return [loss.detach().cpu(), *(leaf.grad.cpu() for leaf in leaves if leaf.grad is not None)]

    for ours, theirs in zip(gradients(torch.device("cuda")), gradients(CPU), strict=True):
        assert float((ours - theirs).norm() / theirs.norm()) < 0.01
