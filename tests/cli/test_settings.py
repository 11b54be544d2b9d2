"""Settings: where they come from, what they become, and how mistakes are said."""

from pathlib import Path

import pytest

from stream.contracts.topics import Topic
from stream.errors import ConfigurationError
from stream.settings import PREFIX, Settings


def write(folder: Path, text: str) -> None:
    (folder / "liftstream.toml").write_text(text)


def test_defaults_are_for_local_use(clean_place: Path) -> None:
    settings = Settings.load()
    assert settings.bootstrap_servers == ["127.0.0.1:9092"]
    assert settings.clickhouse_url == "http://default:@127.0.0.1:8123/liftstream"
    assert settings.checkpoints == f"file://{clean_place}/checkpoints"
    assert settings.experiments is None


def test_the_experiments_folder_is_found_if_there_is_one(clean_place: Path) -> None:
    (clean_place / "experiments").mkdir()
    assert Settings.load().experiments == Path("experiments")


def test_the_environment_wins_over_the_file(clean_place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(clean_place, 'group = "file"\ntopic_prefix = "file."\n')
    monkeypatch.setenv("LIFTSTREAM_GROUP", "environment")
    settings = Settings.load()
    assert (settings.group, settings.topic_prefix) == ("environment", "file.")


def test_lists_and_sizes_have_a_plain_form_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIFTSTREAM_CONVERSION_KINDS", "purchase, subscribe")
    monkeypatch.setenv("LIFTSTREAM_MEMORY_LIMIT", "4GiB")
    settings = Settings.load()
    assert settings.conversion_kinds == ("purchase", "subscribe")
    assert settings.memory_limit == 4 * 2**30


def test_what_decides_the_numbers_becomes_definitions(clean_place: Path) -> None:
    write(clean_place, 'allowed_lateness = "7d"\nattribution_window = "90s"\nconversion_kinds = ["buy"]')
    (clean_place / "experiments").mkdir()
    (clean_place / "experiments" / "ranker.toml").write_text('control = "old"\n[arms.old]\n[arms.new]\n')
    definitions = Settings.load().definitions()
    assert definitions.allowed_lateness_ms == 7 * 86_400_000
    assert definitions.attribution_window_ms == 90_000
    assert definitions.conversion_kinds == ("buy",)
    assert [experiment.name for experiment in definitions.experiments] == ["ranker"]


def test_topic_names_start_with_the_prefix() -> None:
    settings = Settings.load(topic_prefix="shop.")
    assert settings.topic(Topic.IMPRESSIONS) == "shop.impressions"
    assert settings.partials_topic == "shop.arm-partials"
    assert settings.dead_letters_topic == "shop.dead-letters"


def test_several_brokers_are_separated_by_commas() -> None:
    assert Settings.load(broker="kafka://a:1,b:2").bootstrap_servers == ["a:1", "b:2"]


def test_other_stores_stay_as_they_are() -> None:
    assert Settings.load(checkpoints="s3://bucket/prefix").checkpoints == "s3://bucket/prefix"


def test_the_password_is_not_shown() -> None:
    settings = Settings.load(clickhouse_url="http://default:secret@host:8123/liftstream")
    assert "secret" not in repr(settings)


def test_an_unknown_variable_names_the_nearest_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIFTSTREAM_BROKR", "kafka://a:1")
    with pytest.raises(ConfigurationError, match=r"LIFTSTREAM_BROKR: did you mean LIFTSTREAM_BROKER\?"):
        Settings.load()


def test_an_unknown_key_names_the_nearest_setting(clean_place: Path) -> None:
    write(clean_place, 'alowed_lateness = "24h"')
    with pytest.raises(ConfigurationError, match=r"no setting alowed_lateness .*allowed_lateness\?"):
        Settings.load()


@pytest.mark.parametrize(
    ("variable", "value", "rule"),
    [
        ("LIFTSTREAM_BROKER", "localhost", "must be kafka://host:port"),
        ("LIFTSTREAM_CLICKHOUSE_URL", "mysql://h", "must be http(s)://"),
        ("LIFTSTREAM_ALLOWED_LATENESS", "24", "a whole number with a unit"),
        ("LIFTSTREAM_EXPERIMENTS", "/not/there", "must be an existing folder"),
        ("LIFTSTREAM_SLICE_DIMENSIONS", "country,colour", "'colour' is not among"),
        ("LIFTSTREAM_WEB_PORT", "-1", "at least 1"),
    ],
)
def test_a_wrong_value_names_the_variable_and_the_rule(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, rule: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError) as raised:
        Settings.load()
    assert variable in str(raised.value)
    assert rule in str(raised.value)


def test_a_wrong_clickhouse_url_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIFTSTREAM_CLICKHOUSE_URL", "htp://default:secret@host/liftstream")
    with pytest.raises(ConfigurationError) as raised:
        Settings.load()
    assert "secret" not in str(raised.value)


def test_a_file_that_is_not_toml_is_named(clean_place: Path) -> None:
    write(clean_place, "broker = ")
    with pytest.raises(ConfigurationError, match=r"liftstream\.toml is not valid TOML"):
        Settings.load()


def test_every_setting_is_in_the_docs() -> None:
    """One table row each: name, variable, default, the description as in the code."""
    text = (Path(__file__).parents[2] / "docs" / "settings.md").read_text()
    rows = [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in text.splitlines()
        if "LIFTSTREAM_" in line
    ]
    documented = {row[0]: (row[1], row[3]) for row in rows if len(row) == 4}
    assert documented == {
        f"`{name}`": (f"`{PREFIX}{name.upper()}`", field.description)
        for name, field in Settings.model_fields.items()
    }


@pytest.mark.parametrize("setting", ["allowed_lateness", "attribution_window"])
def test_a_duration_without_a_unit_is_refused_with_examples(clean_place: Path, setting: str) -> None:
    write(clean_place, f"{setting} = 24")
    with pytest.raises(ConfigurationError, match="write a whole number with a unit, such as 90s, 24h or 7d"):
        Settings.load()


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("slice_dimensions = 5", "must be a list"),
        ('web_port = "high"', "must be a whole number"),
        ('step_seconds = "soon"', "must be a number"),
        ('memory_limit = "plenty"', "must be a size such as 4GiB"),
        ('breaker_action = "panic"', "must be 'report' or 'stop'"),
    ],
)
def test_a_value_of_the_wrong_kind_is_said_in_plain_words(clean_place: Path, line: str, rule: str) -> None:
    write(clean_place, line)
    with pytest.raises(ConfigurationError, match=rule):
        Settings.load()
