import pytest
import torch
from flashface_pack.flashface_core.features import Person, ReferenceLatent
from flashface_pack.flashface_core.row_references import (
    Known,
    ReferenceGroup,
    RowReferences,
    StepReferences,
    add_to_rows,
    take_rows,
)

SITES = [("middle", 0, 0), ("output", 3, 0), ("output", 4, 0)]


def rows_of(strengths, levels=None, references=True):
    person = Person((ReferenceLatent(torch.zeros(1, 4, 8, 8), "photo", 1.0),), None)
    keys = torch.zeros(1, 4, 8)
    group = ReferenceGroup(0, keys, keys, 1.0)
    step = StepReferences((person,), {site: [group] for site in SITES})
    levels = levels or dict.fromkeys(SITES, 1.0)
    return RowReferences(torch.tensor(strengths), None, None, step if references else None, levels)


def test_the_index_of_the_rows_is_made_once_for_all_sites():
    """Making it at every one would be a copy to the GPU each time, which waits for it."""
    rows = rows_of([0.0, 1.2, 0.0, 0.5])
    indexes = [rows.at(site, (4, 4)) for site in SITES]
    indexes = [seen.index for seen in indexes if seen is not None]
    assert len(indexes) == len(SITES)
    assert indexes[0].tolist() == [1, 3]
    assert all(index is indexes[0] for index in indexes)


def test_rows_that_see_nobody_have_no_index():
    assert rows_of([0.0, 0.0]).at(SITES[0], (4, 4)) is None
    assert rows_of([1.0], references=False).at(SITES[0], (4, 4)) is None
    assert rows_of([1.0], dict.fromkeys(SITES, 0.0)).at(SITES[0], (4, 4)) is None
    assert rows_of([0.0]).is_empty and not rows_of([0.0, 1.0]).is_empty


def test_rows_whose_strength_is_known_beforehand_are_not_asked_for_it():
    """To ask a tensor on a GPU is to wait for it."""
    strengths = torch.ones(3, device="meta")  # which has no numbers
    inputs = strengths, None, None, StepReferences((), {}), {}
    assert not RowReferences(*inputs, Known([0.0, 1.0, 0.0])).is_empty
    assert RowReferences(*inputs, Known([0.0, 0.0, 0.0])).is_empty
    with pytest.raises(NotImplementedError):
        RowReferences(*inputs)


def test_all_rows_are_taken_without_a_copy():
    x, index = torch.randn(3, 5, 2), torch.tensor([0, 1, 2])
    assert take_rows(x, index) is x
    assert torch.equal(take_rows(x, index[1:]), x[1:])


def test_what_is_added_to_all_rows_is_added_bit_for_bit_as_to_some():
    for dtype in (torch.float32, torch.float16):
        x, change = torch.randn(3, 50, 8).to(dtype), torch.randn(3, 50, 8)
        some = add_to_rows(x, torch.tensor([0, 2]), change[[0, 2]])
        every = add_to_rows(x, torch.tensor([0, 1, 2]), change)
        assert some.dtype == every.dtype == dtype
        assert torch.equal(some[[0, 2]], every[[0, 2]]) and torch.equal(some[1], x[1])
