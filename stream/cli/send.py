"""`liftstream send`: events of files into the broker."""

from pathlib import Path

import click

from stream.cli import SUMMARIES, options
from stream.cli.bad_records import BadRecords
from stream.cli.printing import note, progress
from stream.contracts.files import read_events
from stream.contracts.topics import Topic
from stream.errors import ConfigurationError
from stream.producer import Producer
from stream.settings import Settings


@click.command("send", short_help=SUMMARIES["send"])
@click.option("--topic", "word", required=True, help="assignments, impressions or interactions.")
@click.option(
    "--from", "files", required=True, multiple=True, type=options.FILE, metavar="FILE",
    help="Events: .jsonl (also .gz), .avro or .parquet; may be given several times.",
)  # fmt: skip
@options.rejects
@click.pass_context
def command(ctx: click.Context, word: str, files: tuple[Path, ...], rejects: Path | None) -> None:
    """Check the events of files and send them to the broker.

    Records that break the contract are shown as FILE:LINE: FIELD: RULE and not sent; the others are. The exit code is
    then 1.
    """
    topic = _topic(word)
    settings = Settings.load()
    readers = [
        read_events(path, topic) for path in files
    ]  # a missing file is an error before anything is sent
    sent = 0
    with (
        BadRecords(rejects) as bad,
        Producer(
            settings.broker,
            topic_prefix=settings.topic_prefix,
            registry_url=settings.registry_url,
            **settings.kafka_options,
        ) as producer,
        progress() as bar,
    ):
        for path, reader in zip(files, readers, strict=True):
            for event in bar.track(bad.good(reader), description=path.name):
                producer.send(topic, event)
                sent += 1
    note(f"{sent:,} events sent to {settings.topic(topic)}, {bad.count:,} not sent.")
    ctx.exit(1 if bad.count else 0)


def _topic(word: str) -> Topic:
    words = {topic.word: topic for topic in Topic}
    if word not in words:
        raise ConfigurationError(f"There is no topic {word}: choose one of {', '.join(words)}.")
    return words[word]
