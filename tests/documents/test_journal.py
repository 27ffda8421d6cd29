"""The journal of a run's documents."""

import numpy as np
import pytest

from bec_bluesky.documents import DocumentJournal


@pytest.fixture
def journal():
    journal = DocumentJournal()
    yield journal
    journal.close()


def test_documents_are_read_in_order_from_any_place(journal: DocumentJournal) -> None:
    for number in range(5):
        journal.append("event", {"seq_num": number})
    first, place = journal.read(0, 2)
    rest, end = journal.read(place, 100)
    assert [doc["seq_num"] for _, doc in first + rest] == [0, 1, 2, 3, 4]
    assert journal.read(end, 100) == ([], end)


def test_a_document_is_kept_as_it_was(journal: DocumentJournal) -> None:
    doc = {"data": {"image": np.arange(6).reshape(2, 3)}}
    journal.append("event", doc)
    doc["data"]["image"][:] = 0
    ((_, kept),), _ = journal.read(0, 1)
    assert kept["data"]["image"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_more_than_memory_is_for_goes_to_a_file(journal: DocumentJournal) -> None:
    image = np.zeros((512, 512))
    for number in range(6):
        journal.append("event", {"seq_num": number, "data": {"image": image}})
    assert journal.size > 8 * 2**20
    documents, _ = journal.read(0, 10)
    assert [doc["seq_num"] for _, doc in documents] == list(range(6))


def test_what_cannot_be_encoded_is_refused_and_nothing_is_kept(journal: DocumentJournal) -> None:
    with pytest.raises(TypeError):
        journal.append("event", {"data": {"x": object()}})
    assert journal.read(0, 1) == ([], 0)
