from __future__ import annotations

import math

import pytest

from models.catalogue import VALUE_LIMIT, Catalogue


def test_rows_begin_at_one_and_the_unknown_is_zero() -> None:
    catalogue = Catalogue(["a", "b"], ["click"])
    assert [catalogue.row("a"), catalogue.row("b"), catalogue.row("c")] == [1, 2, 0]
    assert catalogue.rows(["b", "?", "a"]).tolist() == [2, 0, 1]
    assert catalogue.rows([]).tolist() == []
    assert [catalogue.type_row("click"), catalogue.type_row("buy"), catalogue.type_row(None)] == [1, 0, 0]
    assert catalogue.row("c") == 0  # a look-up adds nothing


def test_values_are_standardized_and_cut() -> None:
    catalogue = Catalogue(["a"], [], 3.0, 2.0)
    assert catalogue.standardized(None) == 0.0
    assert catalogue.standardized(5.0) == 1.0
    assert catalogue.standardized(1e300) == VALUE_LIMIT
    assert catalogue.standardized(-1e300) == -VALUE_LIMIT


def test_a_vocabulary_hash_knows_order_and_types() -> None:
    hashes = {
        Catalogue(items, types).vocabulary_hash()
        for items, types in [(["a", "b"], []), (["b", "a"], []), (["a"], ["b"]), (["ab"], [])]
    }
    assert len(hashes) == 4
    assert Catalogue(["a"], ["b"]).vocabulary_hash() == Catalogue(["a"], ["b"], 1.0, 2.0).vocabulary_hash()


@pytest.mark.parametrize("std", [0.0, -1.0, math.nan, math.inf])
def test_a_deviation_that_cannot_standardize_is_refused(std: float) -> None:
    with pytest.raises(ValueError, match="standardized"):
        Catalogue(["a"], [], 0.0, std)


def test_ids_that_occur_twice_are_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        Catalogue(["a", "a"])
    with pytest.raises(ValueError, match="twice"):
        Catalogue(["a"], ["click", "click"])


def test_counts_that_are_none_are_refused_and_mean_nothing_to_the_vocabulary() -> None:
    assert Catalogue(["a", "b"], item_counts=[3, 0]).item_counts == [3, 0]
    assert Catalogue(["a"], item_counts=[3]).vocabulary_hash() == Catalogue(["a"]).vocabulary_hash()
    for counts in ([1], [1, -1], [1, 2**60], [1, 2, 3]):
        with pytest.raises(ValueError, match="counts"):
            Catalogue(["a", "b"], item_counts=counts)
