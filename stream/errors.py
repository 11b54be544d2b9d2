"""Everything liftstream raises on purpose.

LiftstreamError
├── Rejected            this event can never be processed (producer side; the stream uses reason codes)
├── ConfigurationError  a setting, file or argument is wrong; the message says what to do
├── Unavailable         broker, database or store does not answer; try again later
├── DamagedStore        a checkpoint store that must not be trusted
└── DirectoryInUse      an embedded database or store is owned by another process
"""


class LiftstreamError(Exception):
    """Base of all. The message is one sentence for the person who must act."""


class Rejected(LiftstreamError):
    """An event breaks its contract: names field, value and rule."""


class ConfigurationError(LiftstreamError):
    """A setting, file or argument is wrong."""


class Unavailable(LiftstreamError):
    """A service does not answer now."""


class DamagedStore(LiftstreamError):
    """The checkpoint store contradicts itself, the broker or the database."""


class DirectoryInUse(LiftstreamError):
    """Another process owns this directory."""
