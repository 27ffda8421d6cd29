"""Documents that are malformed or out of order, put right for sinks."""

import copy
from typing import Any

import pytest

from bec_bluesky.documents import DocumentMender
from tests.documents.feed_harness import run_documents

Documents = list[tuple[str, Any]]
_BAD = [None, 3, "x", [], ["a"], {}, {"a": 1}, [[1]], float("nan"), b"x", {1: 2}]


def mended(documents: Documents, *, only_order: bool) -> tuple[Documents, list[str]]:
    mender = DocumentMender(only_order=only_order)
    return [part for document in documents for part in mender(*document)], mender.problems


def late_descriptor(events: int) -> Documents:
    start, descriptor, *others, stop = run_documents(events)
    return [start, *others, descriptor, stop]


def test_events_that_wait_for_their_descriptor_come_after_it() -> None:
    documents = late_descriptor(1000)
    for only_order in (True, False):
        found, problems = mended(documents, only_order=only_order)
        assert [name for name, _ in found] == ["start", "descriptor"] + ["event"] * 1000 + ["stop"]
        assert problems == ["primary: 1000 came before their descriptor"]


def test_what_is_left_out_because_its_descriptor_came_too_late_is_told() -> None:
    found, problems = mended(late_descriptor(1500), only_order=False)
    assert [doc["seq_num"] for name, doc in found if name == "event"] == list(range(1, 1001))
    assert problems == [
        "more than 1000 documents came before their descriptor: those after them are left out",
        "primary: 1000 came before their descriptor",
        "500 documents were left out, whose descriptor came too late or never",
    ]


def test_documents_that_are_only_put_in_order_are_all_there_in_order() -> None:
    found, problems = mended(late_descriptor(1500), only_order=True)
    assert [doc["seq_num"] for name, doc in found if name == "event"] == list(range(1, 1501))
    assert problems == [
        "more than 1000 documents came before their descriptor: they are passed on without it",
        "primary: 500 came before their descriptor",
    ]


@pytest.mark.parametrize("only_order", [True, False])
@pytest.mark.parametrize("bad", _BAD, ids=repr)
def test_no_value_of_any_field_makes_the_mender_raise(bad: Any, only_order: bool) -> None:
    documents: Documents = run_documents(2)
    descriptor = documents[1][1]
    uid = descriptor["uid"]
    descriptor["object_keys"] = {"det": ["det"]}
    page = {"uid": ["p"], "seq_num": [3], "time": [1.0], "data": {"det": [1.0]}, "timestamps": {"det": [1.0]}}
    resource = {"uid": "r", "data_key": "det", "mimetype": "m", "uri": "u", "parameters": {}, "run_start": "s"}
    ranges = {"indices": {"start": 0, "stop": 1}, "seq_nums": {"start": 1, "stop": 2}}
    documents[4:4] = [
        ("event_page", {"descriptor": uid, "filled": {}, **page}),
        ("stream_resource", resource),
        ("stream_datum", {"uid": "d", "descriptor": uid, "stream_resource": "r", **ranges}),
    ]
    for number, (_, document) in enumerate(documents):
        for key in document:
            broken: Documents = [(name, copy.deepcopy(dict(doc))) for name, doc in documents]
            broken[number][1][key] = bad
            found, _ = mended(broken, only_order=only_order)
            assert (found[0][0], found[-1][0]) == ("start", "stop")
    for column in ("data", "object_keys"):
        broken = [(name, copy.deepcopy(dict(doc))) for name, doc in documents]
        for _, document in broken:
            if column in document:
                document[column] = {"det": bad}
        found, _ = mended(broken, only_order=only_order)
        assert (found[0][0], found[-1][0]) == ("start", "stop")
