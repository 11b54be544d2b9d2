import os
import socket
from pathlib import Path

import pytest

from stream.errors import ConfigurationError, Unavailable
from stream.local.broker import EmbeddedBroker


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_embedded_broker_answers_on_the_loopback_and_ends_with_its_block(tmp_path: Path) -> None:
    with EmbeddedBroker(log_path=tmp_path / "broker.log") as broker:
        pid = broker.pid
        assert pid is not None
        assert is_running(pid)
        assert broker.url == f"kafka://127.0.0.1:{broker.port}"
        socket.create_connection(("127.0.0.1", broker.port), timeout=5).close()
        with socket.socket() as elsewhere:
            assert elsewhere.connect_ex(("127.0.0.2", broker.port)) != 0  # not on other addresses
    assert not is_running(pid)
    assert "listening on" in (tmp_path / "broker.log").read_text()


def test_a_taken_port_is_said() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"Port {port} is taken"):
            EmbeddedBroker(port).start()


def test_a_broker_that_ends_at_once_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALF_TANSU_BIN", "/bin/false")
    with pytest.raises(Unavailable, match="ended at once with exit code 1"):
        EmbeddedBroker().start()


def test_a_missing_binary_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALF_TANSU_BIN", "/nowhere")
    with pytest.raises(ConfigurationError, match="no embedded broker for this platform"):
        EmbeddedBroker().start()


def test_stopping_twice_is_fine() -> None:
    broker = EmbeddedBroker()
    broker.start()
    broker.stop()
    broker.stop()
    assert broker.pid is None
