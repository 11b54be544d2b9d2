"""What BI tools see, on chDB and on a real server."""

import base64
from datetime import UTC, datetime, timedelta

import pytest

from stream.sink import queries
from stream.sink.connect import Connection
from stream.sink.queries import RESULT_COLUMNS, Database
from stream.sink.writer import Writer
from tests.sink.conftest import Write
from tests.sink.makers import HOUR_MS, NOON_MS, a_dead_letter, a_ledger_row, a_pane, a_total, an_emission

NOON = datetime(2025, 1, 1, 12, tzinfo=UTC)


class TestArmRates:
    @staticmethod
    def rates(
        db: Database, columns: str = "impressions, clicks", resolution: str = "10s"
    ) -> list[tuple[object, ...]]:
        answer = db.query(
            f"SELECT {columns} FROM arm_rates WHERE resolution = '{resolution}' ORDER BY slice, arm, pane_start"
        )
        return [tuple(row) for row in answer.rows]

    def test_fragments_and_partitions_of_a_pane_add_up(self, write: Write, db: Database) -> None:
        write(
            an_emission(1, panes=[a_pane(impressions=5, clicks=1), a_pane(impressions=7, fragment=2)]),
            an_emission(1, partition=1, panes=[a_pane(impressions=100, clicks=3)]),
        )
        assert self.rates(db) == [(112, 4)]

    def test_writing_the_same_step_again_changes_nothing(self, write: Write, db: Database) -> None:
        step = an_emission(3, panes=[a_pane(impressions=5)], totals=[a_total(impressions=5)])
        write(step)
        once = self.rates(db), queries.results(db)
        write(step)
        assert (self.rates(db), queries.results(db)) == once

    @pytest.mark.parametrize("steps", [(1, 2, 3), (3, 2, 1), (2, 3, 1)])
    def test_the_newest_version_counts_whatever_the_order_of_writing(
        self, write: Write, db: Database, steps: tuple[int, ...]
    ) -> None:
        write(*(an_emission(step, panes=[a_pane(impressions=step * 10)]) for step in steps))
        assert self.rates(db) == [(30, 0)]

    def test_panes_of_all_add_up_to_minutes_and_hours(self, write: Write, db: Database) -> None:
        starts = [NOON_MS, NOON_MS + 50_000, NOON_MS + 60_000, NOON_MS + HOUR_MS]
        write(an_emission(1, panes=[a_pane(pane_start_ms=at, impressions=1) for at in starts]))
        found = {r: self.rates(db, "pane_start, impressions", r) for r in ("10s", "1m", "1h")}
        assert [count for _, count in found["10s"]] == [1, 1, 1, 1]
        assert found["1m"] == [(NOON, 2), (NOON + timedelta(minutes=1), 1), (NOON + timedelta(hours=1), 1)]
        assert found["1h"] == [(NOON, 3), (NOON + timedelta(hours=1), 1)]

    def test_slices_have_minutes_and_hours_but_no_ten_seconds(self, write: Write, db: Database) -> None:
        panes = [
            a_pane(dimension="device", value="tv", impressions=4, pane_start_ms=NOON_MS + i * 60_000)
            for i in (0, 1)
        ]
        write(an_emission(1, panes=panes))
        assert self.rates(db, "slice, impressions", "10s") == []
        assert self.rates(db, "slice, impressions", "1m") == [("device=tv", 4), ("device=tv", 4)]
        assert self.rates(db, "slice, impressions", "1h") == [("device=tv", 8)]

    def test_only_the_fifty_largest_values_of_a_dimension_show_by_name(
        self, write: Write, db: Database
    ) -> None:
        # v00 is the largest only over both partitions together
        first = [a_pane(dimension="country", value=f"v{i:02}", impressions=i) for i in range(60)]
        second = [a_pane(dimension="country", value="v00", impressions=1000)]
        other = [a_pane(dimension="device", value=f"d{i}", impressions=1) for i in range(3)]
        write(an_emission(1, panes=[*first, *other]), an_emission(1, partition=1, panes=second))
        shown = dict(self.rates(db, "slice, impressions", "1h"))
        countries = {name: count for name, count in shown.items() if str(name).startswith("country=")}
        assert len(countries) == 51
        assert countries["country=v00"] == 1000
        assert countries["country=__other__"] == sum(range(11))
        assert "country=v11" in countries
        assert {"device=d0", "device=d1", "device=d2"} <= shown.keys()

    def test_a_repair_to_zero_makes_the_row_vanish(self, write: Write, db: Database) -> None:
        write(an_emission(1, panes=[a_pane(impressions=5), a_pane(arm="b", impressions=1)]))
        write(an_emission(2, panes=[a_pane(impressions=-5, fragment=2)]))
        assert self.rates(db, "arm, impressions") == [("b", 1)]

    def test_rates_are_null_without_impressions(self, write: Write, db: Database) -> None:
        write(
            an_emission(
                1,
                panes=[
                    a_pane(clicks=1),
                    a_pane(arm="b", impressions=4, clicked_impressions=1, converted_impressions=3),
                ],
            )
        )
        assert self.rates(db, "ctr, conversion_rate") == [(None, None), (0.25, 0.75)]

    def test_an_older_generation_is_hidden(self, write: Write, db: Database) -> None:
        old = an_emission(9, generation=1, panes=[a_pane(impressions=5)], totals=[a_total(impressions=5)])
        write(old, an_emission(1, generation=2, panes=[a_pane(arm="b", impressions=1)]), old)
        assert self.rates(db, "arm, impressions") == [("b", 1)]
        assert queries.results(db) == []


class TestArmTotals:
    def test_results_sum_over_partitions_and_put_all_first(self, write: Write, db: Database) -> None:
        write(
            an_emission(
                1,
                totals=[
                    a_total(arm="b", assigned_users=1),
                    a_total(dimension="country", value="AT", assigned_users=2),
                    a_total(assigned_users=3, impressions=4, clicked_impressions=1, clicks=2),
                    a_total(experiment="banner", assigned_users=9),
                ],
            ),
            an_emission(
                1, partition=1, totals=[a_total(assigned_users=10, impressions=4, revenue_minor=-50)]
            ),
        )
        found = queries.results(db)
        assert [(r["experiment"], r["slice"], r["arm"]) for r in found] == [
            ("banner", "all", "a"), ("shelf", "all", "a"), ("shelf", "all", "b"), ("shelf", "country=AT", "a"),
        ]  # fmt: skip
        assert found[1] == {
            "experiment": "shelf", "arm": "a", "slice": "all", "assigned_users": 13, "exposed_users": 0,
            "impressions": 8, "clicked_impressions": 1, "ctr": 0.125, "clicks": 2,
            "converted_impressions": 0, "conversions": 0, "conversion_rate": 0.0, "revenue_minor": -50,
        }  # fmt: skip
        assert [r["experiment"] for r in queries.results(db, "banner")] == ["banner"]
        assert queries.results(db, "it's\\not\tthere") == []

    def test_results_are_what_sql_says(self, write: Write, db: Database) -> None:
        write(
            an_emission(
                1, totals=[a_total(arm=arm, impressions=3, clicks=1, revenue_minor=7) for arm in "cab"]
            )
        )
        columns = ", ".join(RESULT_COLUMNS)
        answer = queries.sql(db, f"select {columns} from arm_totals order by experiment, slice, arm")
        assert answer.dicts() == queries.results(db)
        assert answer.columns == RESULT_COLUMNS

    def test_sums_of_squares_are_exact_beyond_64_bits(self, write: Write, db: Database) -> None:
        large = 10**30 + 7
        write(
            an_emission(
                1, totals=[a_total(revenue_sq=large, revenue_minor=2**70, revenue_x_conversions=-large)]
            ),
            an_emission(1, partition=1, totals=[a_total(revenue_sq=large, revenue_minor=1)]),
        )
        moments = db.query("SELECT revenue_sq, revenue_x_conversions, clicks_sq FROM arm_sums").rows
        assert [tuple(row) for row in moments] == [(2 * large, -large, 0)]
        assert queries.results(db)[0]["revenue_minor"] == 2**70 + 1

    def test_only_the_fifty_largest_values_of_a_dimension_show_by_name(
        self, write: Write, db: Database
    ) -> None:
        totals = [
            a_total(dimension="country", value=f"v{i:02}", impressions=i, assigned_users=1) for i in range(60)
        ]
        write(an_emission(1, totals=totals))
        found = {r["slice"]: r["assigned_users"] for r in queries.results(db)}
        assert len(found) == 51
        assert found["country=__other__"] == 10


class TestArmRolling:
    def test_shows_the_newest_row_of_each_window(
        self, connection: Connection, write: Write, db: Database
    ) -> None:
        write(an_emission(1))  # makes generation 1 known
        writer = Writer(connection.client)
        for version, impressions in ((2, 20), (1, 10)):
            columns = {
                "experiment": ["shelf"] * 2, "arm": ["a"] * 2, "dimension": ["all"] * 2, "value": [""] * 2,
                "window_seconds": [60, 86_400], "as_of_ms": [NOON_MS] * 2, "impressions": [impressions, 40],
                "clicked_impressions": [5, 10], "converted_impressions": [0, 0], "clicks": [6, 11],
                "conversions": [0, 0], "revenue_minor": [0, 0],
            }  # fmt: skip
            writer.put_rows("rolling", columns, generation=1, version=[version, version])
        writer.close()
        rows = db.query(
            'SELECT slice, "window", as_of, impressions, ctr FROM arm_rolling ORDER BY impressions'
        ).rows
        assert [tuple(row) for row in rows] == [("all", "1m", NOON, 20, 0.25), ("all", "24h", NOON, 40, 0.25)]


class TestLedger:
    def test_sums_fragments_and_finds_imbalances(self, write: Write, db: Database) -> None:
        write(
            an_emission(
                1,
                ledger=[
                    a_ledger_row(consumed=5, counted=4, late=1),
                    a_ledger_row(fragment=2, consumed=5, counted=5),
                    a_ledger_row(
                        topic="interactions", consumed=4, counted=4, attributed=1, waiting=2, other_user=1
                    ),
                    a_ledger_row(topic="assignments", consumed=2, counted=1),
                    a_ledger_row(topic="interactions", hour_ms=NOON_MS + HOUR_MS, consumed=1, counted=1),
                ],
            )
        )
        found = queries.ledger(db)
        assert [(r["topic"], r["consumed"], r["orphaned"], r["balanced"]) for r in found] == [
            ("assignments", 2, 0, False), ("impressions", 10, 0, True), ("interactions", 4, 1, True),
            ("interactions", 1, 0, False),
        ]  # fmt: skip
        assert [(r["topic"], r["hour"]) for r in queries.ledger_imbalances(db)] == [
            ("assignments", NOON), ("interactions", NOON + timedelta(hours=1)),
        ]  # fmt: skip

    def test_outcomes_without_consumed_records_show_as_imbalance(self, write: Write, db: Database) -> None:
        write(an_emission(1, ledger=[a_ledger_row(counted=1), a_ledger_row(hour_ms=NOON_MS + HOUR_MS)]))
        assert [r["hour"] for r in queries.ledger_imbalances(db)] == [NOON]
        assert len(queries.ledger(db)) == 1


class TestDeadLetters:
    def test_payloads_are_text_where_they_can_be_read(self, write: Write, db: Database) -> None:
        payloads = [b"caf\xc3\xa9\n", b"\x00\x00\x00\x00\x07abc", b"\xff"]
        letters = [a_dead_letter(offset=i, payload=p, schema_id=i - 1) for i, p in enumerate(payloads)]
        write(an_emission(1, dead_letters=letters), an_emission(2, dead_letters=letters[:1]))
        rows = db.query(
            'SELECT "offset", schema_id, payload_encoding, payload FROM dead_letters ORDER BY "offset"'
        ).rows
        assert [tuple(row) for row in rows] == [
            (0, None, "text", "café\n"),
            (1, 0, "base64", base64.b64encode(payloads[1]).decode()),
            (2, 1, "base64", "/w=="),
        ]


class TestPipelineStatus:
    def test_says_how_far_each_partition_is_and_how_long_records_took(
        self, connection: Connection, db: Database
    ) -> None:
        writer = Writer(connection.client, now=lambda: NOON_MS / 1000 + 5)
        writer.put(an_emission(7, lag=3, record_at_ms=[NOON_MS + 1000 - i * 10 for i in range(100)]))
        writer.put(an_emission(1, partition=1, clock_ms=-1))
        writer.close()
        first, second = queries.status(db)
        assert (first["partition"], first["watermark"], first["lag"], first["last_step"]) == (0, NOON, 3, 7)
        assert first["data_as_of"] == NOON + timedelta(seconds=1)
        assert first["last_step_at"] == NOON + timedelta(seconds=1)
        assert first["written_at"] == NOON + timedelta(seconds=5)
        assert first["latency_p50_ms"] == pytest.approx(4495, abs=10)
        assert first["latency_p95_ms"] == pytest.approx(4945, abs=10)
        assert first["latency_p99_ms"] == pytest.approx(4985, abs=10)
        assert (second["partition"], second["watermark"], second["horizon"]) == (1, None, None)
