from benchmarks.__main__ import Report
from benchmarks.meter import Cost
from benchmarks.runs import Run
from benchmarks.schema_registry import schema_registry
from stream.contracts.registry import Registry
from stream.contracts.topics import Topic
from stream.contracts.versions import newest

PROMISED = [
    "events",
    "exact",
    "workers",
    "events_per_second",
    "cpu_us_per_event",
    "peak_rss_mb",
    "ratio_to_floor",
    "ratio_to_plain_faust",
]


def a_run(cpu_us: float, *wrong: str) -> Run:
    return Run(1_000, Cost(seconds=0.5, cpu_seconds=cpu_us / 1_000, peak_rss_mb=100.4), wrong)


def test_the_object_has_the_promised_names_and_ratios_of_cpu_within_one_run():
    report = Report(1, a_run(2.0), a_run(1.0), {"plain_faust": a_run(400.0)}).to_json()
    assert list(report) == PROMISED
    assert report["ratio_to_floor"] == 2.0
    assert report["ratio_to_plain_faust"] == 200.0
    assert (report["events_per_second"], report["cpu_us_per_event"], report["peak_rss_mb"]) == (
        2_000,
        2.0,
        100,
    )


def test_a_peer_that_was_asked_for_adds_its_ratio():
    peers = {"plain_faust": a_run(400.0), "clickhouse": a_run(16.0)}
    report = Report(1, a_run(2.0), a_run(1.0), peers).to_json()
    assert list(report) == [*PROMISED, "ratio_to_clickhouse"]
    assert report["ratio_to_clickhouse"] == 8.0


def test_the_report_of_a_log_says_how_many_records_were_not_sent():
    report = Report(1, a_run(2.0), a_run(1.0), {}, {"are in the future": 3}).to_json()
    assert list(report) == [*PROMISED, "left_out"]
    assert report["left_out"] == {"are in the future": 3}


def test_a_run_too_short_for_the_clock_has_no_ratio():
    report = Report(1, a_run(0.0), a_run(0.0), {"plain_faust": a_run(400.0)}).to_json()
    assert (report["ratio_to_floor"], report["ratio_to_plain_faust"]) == (None, None)


def test_only_our_own_mistakes_make_the_result_inexact_but_all_are_told():
    report = Report(1, a_run(2.0), a_run(1.0), {"clickhouse": a_run(16.0, "ClickHouse's counts are wrong.")})
    assert report.exact
    assert report.wrong == ["ClickHouse's counts are wrong."]


def test_peers_get_our_schemas_from_the_registry():
    with schema_registry() as url:
        registry = Registry(url)
        for topic in Topic:
            assert registry.schema(newest(topic).schema_id) == newest(topic).schema
        assert registry.schema(99) is None
        registry.close()
