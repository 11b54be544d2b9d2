"""Outcomes: every record has exactly one; poison hurts no neighbour; dead letters say what and why."""

import struct
from typing import Any

import numpy as np
import pytest

from stream.contracts.avro import encode
from stream.contracts.limits import MAX_PAYLOAD_BYTES
from stream.contracts.models import MODELS
from stream.contracts.reasons import RULES, UNREAD, Reason
from stream.contracts.topics import Topic
from stream.engine.batch import TEXT_SHIFT, UNREADABLE
from stream.intake.decode import columns_of, decode
from tests.engine.makers import (
    DAY,
    HOUR,
    MINUTE,
    PROGRAMS,
    T0,
    Run,
    a_batch,
    an_assignment,
    an_impression,
    an_interaction,
)

OUTCOMES = ("counted", "duplicate", "late", "outside", "rejected")
POISON = [
    b"",
    b"\x00",
    b"\x01\x00\x00\x00\x01rest",
    b"\x00\xff\xff\xff\xff",
    b"\x00\x00\x00\x00\x01",
    bytes(40),
    b"\xff" * 60,
]
IMPRESSION = encode(Topic.IMPRESSIONS, MODELS[Topic.IMPRESSIONS].model_construct(**an_impression()))


def test_consumed_is_the_sum_of_the_outcomes_in_every_hour() -> None:
    run = Run()
    run.step(
        assignments=[an_assignment()],
        impressions=[
            an_impression("i1"), an_impression("i1"), an_impression("i2", user_id="u2"), (b"poison", T0 + 5 * HOUR),
            (an_impression("i3", T0 + 9 * HOUR), T0 + 9 * HOUR), (an_impression("i4"), T0 + 9 * HOUR),
        ],
    )  # fmt: skip
    run.step(impressions=[an_impression("late", T0 - 3 * DAY)])
    for counts in run.ledger().values():
        assert counts["consumed"] == sum(counts[name] for name in OUTCOMES)
    hour = T0 // HOUR
    assert run.ledger() == {
        ("assignments", hour): {"consumed": 1, "counted": 1},
        ("impressions", hour): {"consumed": 3, "counted": 1, "duplicate": 1, "outside": 1},
        ("impressions", hour + 5): {"consumed": 1, "rejected": 1},
        ("impressions", hour + 9): {"consumed": 2, "counted": 2},
        ("impressions", hour - 72): {"consumed": 1, "late": 1},
    }


def test_the_hour_of_the_ledger_is_that_of_the_record_time() -> None:
    run = Run()
    run.step(impressions=[(an_impression("i1", T0), T0 + HOUR - 1), (an_impression("i2", T0), T0 + HOUR)])
    assert set(run.ledger()) == {("impressions", T0 // HOUR), ("impressions", T0 // HOUR + 1)}


@pytest.mark.parametrize("record_at", [2**62, 2**63 - 1, -1, -(2**62)])
def test_a_record_time_that_cannot_be_is_taken_for_the_planners_time(record_at: int) -> None:
    run = Run()
    hour = T0 // HOUR + (1 if record_at > 0 else 0)
    run.step(impressions=[(an_impression("i", T0), record_at)], planned_at=T0)
    assert run.ledger() == {("impressions", hour): {"consumed": 1, "outside": 1}}
    run.step(assignments=[an_assignment()])
    assert run.ledger()["impressions", hour] == {"consumed": 1, "counted": 1}


def test_counted_interactions_are_attributed_waiting_or_orphaned() -> None:
    run = Run()
    run.step(
        assignments=[an_assignment()], impressions=[an_impression(), an_impression("other", user_id="u2")],
        interactions=[
            an_interaction("n1"), an_interaction("n2", impression_id="imp-later"),
            an_interaction("n3", impression_id=None),
            an_interaction("n4", impression_id="imp-other"), an_interaction("n5", T0 - 6 * MINUTE),
            an_interaction("n6", user_id="u2"),
        ],
    )  # fmt: skip
    ledger = run.outcomes(Topic.INTERACTIONS)
    assert ledger == {
        "consumed": 6, "counted": 5, "outside": 1, "attributed": 1, "waiting": 1, "no_reference": 1, "other_user": 1,
        "outside_window": 1,
    }  # fmt: skip


def test_a_misrouted_record_is_flagged_and_counted_where_it_landed() -> None:
    run = Run()
    users = [f"u{k}" for k in range(40)]
    assigned = a_batch(
        Topic.ASSIGNMENTS, [(an_assignment(f"a{u}", user_id=u), T0) for u in users], partitions=4
    )
    shown = a_batch(Topic.IMPRESSIONS, [(an_impression(f"i{u}", T0, u), T0) for u in users], partitions=4)
    astray = int(shown.misrouted.sum())
    assert 0 < astray < 40
    run.execute({Topic.ASSIGNMENTS: [assigned], Topic.IMPRESSIONS: [shown]}, T0, (True, True, True))
    assert run.outcomes(Topic.IMPRESSIONS) == {"consumed": 40, "counted": 40, "misrouted": astray}
    assert run.total()["impressions"] == 40


@pytest.mark.parametrize("topic", list(Topic))
def test_poison_is_rejected_and_hurts_no_neighbour(topic: Topic) -> None:
    run = Run()
    makers = {
        Topic.ASSIGNMENTS: an_assignment,
        Topic.IMPRESSIONS: an_impression,
        Topic.INTERACTIONS: an_interaction,
    }
    arrivals = []
    for k, poison in enumerate(POISON):
        arrivals += [(poison, T0), (makers[topic](f"x{k}", T0, f"u{k}"), T0)]
    run.step(**{topic.word: arrivals})  # type: ignore[arg-type]
    fine = "counted" if topic == Topic.ASSIGNMENTS else "outside"
    assert run.outcomes(topic) == {"consumed": 14, fine: 7, "rejected": 7}
    assert [offset for _, offset, _, _ in run.dead_letters()] == list(range(0, 14, 2))


def test_a_step_of_nothing_but_poison_changes_no_number() -> None:
    run = Run()
    run.step(interactions=[(poison, T0) for poison in POISON])
    assert run.totals() == run.panes() == {}
    assert run.engine.clock_ms == -1


def test_a_dead_letter_has_reason_field_rule_schema_and_payload() -> None:
    run = Run()
    bad = encode(
        Topic.INTERACTIONS, MODELS[Topic.INTERACTIONS].model_construct(**an_interaction(value_minor=10**13))
    )
    run.step(interactions=[(an_interaction(), T0), (bad, T0 + 7)], planned_at=T0 + HOUR)
    ((key, values),) = run.rows["dead_letters"].items()
    schema_id = struct.unpack(">I", bad[1:5])[0]
    assert key == ("interactions", 1)
    assert values == (
        T0 + 7,
        "out_of_range",
        "value_minor",
        RULES[Reason.OUT_OF_RANGE],
        schema_id,
        bad,
        len(bad),
    )


def test_of_a_huge_record_the_first_bytes_are_kept_and_its_length() -> None:
    run = Run()
    columns = columns_of([bytes(2 * MAX_PAYLOAD_BYTES)], np.array([5]), np.array([T0]))
    batch = decode(Topic.IMPRESSIONS, columns, PROGRAMS[Topic.IMPRESSIONS], partition=0, partitions=1)
    run.execute({Topic.IMPRESSIONS: [batch]}, T0, (True, True, True))
    (values,) = run.rows["dead_letters"].values()
    assert (len(values[-2]), values[-1]) == (MAX_PAYLOAD_BYTES, 2 * MAX_PAYLOAD_BYTES)


def test_records_of_a_batch_that_cannot_be_unpacked_are_rejected() -> None:
    run = Run()
    columns = columns_of([None, None], np.array([5, 6]), np.array([T0, T0]))
    columns.value_len[:] = UNREADABLE
    batch = decode(Topic.IMPRESSIONS, columns, PROGRAMS[Topic.IMPRESSIONS], partition=0, partitions=1)
    run.execute({Topic.IMPRESSIONS: [batch]}, T0, (True, True, True))
    assert run.dead_letters() == [("impressions", 5, "unreadable", ""), ("impressions", 6, "unreadable", "")]


@pytest.mark.parametrize("reason", sorted(UNREAD), ids=lambda reason: reason.word)
def test_what_lies_in_the_fields_of_a_record_that_was_not_read_changes_nothing(reason: Reason) -> None:
    def put_out(text_length: int) -> dict[str, Any]:
        run = Run()
        run.step(assignments=[an_assignment(user_id="u1")])
        columns = columns_of([b"u1"], np.array([5]), np.array([T0]))
        batch = decode(Topic.IMPRESSIONS, columns, PROGRAMS[Topic.IMPRESSIONS], partition=0, partitions=1)
        batch.status[:] = reason
        batch.fields[:] = columns.value_pos[0] << TEXT_SHIFT | text_length
        run.execute({Topic.IMPRESSIONS: [batch]}, T0, (True, True, True))
        return run.rows

    assert put_out(len("u1")) == put_out(len("u"))


def test_dead_letters_of_no_value_and_of_no_header_have_no_schema() -> None:
    run = Run()
    columns = columns_of([b"x", b""], np.array([5, 6]), np.array([T0, T0]))
    columns.value_len[1] = -1  # a tombstone
    batch = decode(Topic.IMPRESSIONS, columns, PROGRAMS[Topic.IMPRESSIONS], partition=0, partitions=1)
    run.execute({Topic.IMPRESSIONS: [batch]}, T0, (True, True, True))
    assert run.dead_letters() == [("impressions", 5, "bad_header", ""), ("impressions", 6, "null_value", "")]
    assert [values[4:] for values in run.rows["dead_letters"].values()] == [(-1, b"x", 1), (-1, b"", 0)]


def test_each_dead_letter_is_put_out_once() -> None:
    run = Run()
    first = run.step(impressions=[(b"poison", T0)])
    second = run.step(impressions=[an_impression()])
    assert [len(outputs.tables["dead_letters"]["offset"]) for outputs in (first, second)] == [1, 0]


def test_trailing_bytes_and_unknown_schemas_are_named() -> None:
    run = Run()
    unknown = b"\x00" + struct.pack(">I", 2**31) + IMPRESSION[5:]
    run.step(impressions=[(IMPRESSION + b"x", T0), (unknown, T0), (IMPRESSION[:-1], T0)])
    assert [reason for _, _, reason, _ in run.dead_letters()] == [
        "trailing_bytes",
        "unknown_schema",
        "malformed",
    ]


def test_a_batch_that_may_only_be_read_can_be_executed() -> None:
    run = Run()
    batch = a_batch(Topic.INTERACTIONS, [(an_interaction(), T0 + HOUR)])
    batch.fields.flags.writeable = False
    run.execute({Topic.INTERACTIONS: [batch]}, T0 + HOUR, (True, True, True))
    assert run.outcomes(Topic.INTERACTIONS) == {"consumed": 1, "outside": 1}
