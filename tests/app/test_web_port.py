import socket

import pytest

from stream.app.faust_app import free_port
from stream.errors import ConfigurationError


def test_a_second_worker_on_the_machine_takes_another_port(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as first:
        taken = first.getsockname()[1]
        assert free_port("127.0.0.1", taken) not in (0, taken)
    assert f"Port {taken} of 127.0.0.1 is taken" in caplog.text
    assert free_port("127.0.0.1", taken) == taken


def test_a_host_that_is_not_ours_is_one_sentence() -> None:
    with pytest.raises(ConfigurationError, match=r"No port can be opened on web_host 192\.0\.2\.1"):
        free_port("192.0.2.1", 6066)
