"""Captures of packets, as another library reads them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import dpkt
import pytest

from pytest_sandbox_runtime import (
    Engine,
    EngineSettings,
    FileAccessError,
    Network,
    SandboxClosedError,
    SandboxError,
    SandboxSpec,
    SpecError,
)
from tests.runs import await_runs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_sandbox_runtime import LiveNetwork, Sandbox
    from pytest_sandbox_runtime.process import Process

    Create = Callable[..., Sandbox]
    Start = Callable[[Sandbox, str], Process]

pytestmark = pytest.mark.needs("overlay-on-host", "networks", "python3")

TEXT = bytes(range(256)) * 4000
RECEIVE = """
import socket
server = socket.create_server(("::", 7123), family=socket.AF_INET6, dualstack_ipv6=True)
print("up", flush=True)
while True:
    connection, _ = server.accept()
    while connection.recv(1 << 20):
        pass
    connection.close()
"""
SEND = """
import socket, sys
connection = socket.create_connection((sys.argv[1], 7123), 5)
connection.sendall(bytes(range(256)) * 4000)
connection.shutdown(socket.SHUT_WR)
connection.recv(1)
"""
# Says each word that it is told, in a datagram to a port of its own.
TALK = """
import socket
here = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
here.bind(("127.0.0.1", 7123))
print("up", flush=True)
while word := input():
    here.sendto(word.encode(), ("127.0.0.1", 7123))
    print(here.recv(100).decode(), flush=True)
"""
FLOOD = """
import socket, sys
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(200):
    one.sendto(bytes(60000), ("127.0.0.1", 7123))
"""
# Ends as pytest does when it is out of memory.
KILLED = """
import os, sys
from pytest_sandbox_runtime import Engine, EngineSettings, SandboxSpec
engine = Engine.open(EngineSettings(store=sys.argv[1]))
sandbox = engine.create(SandboxSpec())
sandbox.capture(sys.argv[2])
sandbox.run(["python3", "-c", sys.argv[3]], check=True)
os.kill(os.getpid(), 9)
"""


class Packet(NamedTuple):
    time: float
    frame: Any

    @property
    def transport(self) -> Any:
        return self.frame.data.data


def read(path: str | Path) -> list[Packet]:
    with open(path, "rb") as file:
        reader = dpkt.pcap.Reader(file)
        assert reader.datalink() == dpkt.pcap.DLT_EN10MB
        return [Packet(moment, dpkt.ethernet.Ethernet(data)) for moment, data in reader]


def of(kind: type, path: str | Path) -> list[Packet]:
    """Return the packets of a transport, without what machines say to find each other."""
    found = [packet for packet in read(path) if isinstance(packet.frame.data, (dpkt.ip.IP, dpkt.ip6.IP6))]
    return [packet for packet in found if isinstance(packet.transport, kind)]


def words(path: str | Path) -> list[bytes]:
    return [packet.transport.data for packet in of(dpkt.udp.UDP, path)]


def sent(packets: list[Packet]) -> bytes:
    """Return what went to the server, each segment at its place."""
    segments = [packet.transport for packet in packets if packet.transport.dport == 7123]
    (begin,) = (one.seq + 1 for one in segments if one.flags & dpkt.tcp.TH_SYN)
    # Those that two processors have sent may come in another order.
    placed = {(one.seq - begin) % (1 << 32): one.data for one in segments if one.data}
    stream = bytearray(max(at + len(data) for at, data in placed.items()))
    for at, data in placed.items():
        stream[at : at + len(data)] = data
    return bytes(stream)


class Talker:
    def __init__(self, process: Process) -> None:
        self._process = process
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"

    def say(self, word: str) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(word.encode() + b"\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == word.encode() + b"\n"


@pytest.fixture
def box(create: Create) -> Sandbox:
    return create()


@pytest.fixture
def talker(box: Sandbox) -> Iterator[Talker]:
    with box.popen(["python3", "-c", TALK], stdin=subprocess.PIPE) as process:
        yield Talker(process)


@pytest.fixture
def serve(start: Start) -> Callable[[Sandbox], None]:
    def serve_one(sandbox: Sandbox) -> None:
        server = start(sandbox, RECEIVE)
        assert server.stdout is not None
        assert server.stdout.readline() == b"up\n"

    return serve_one


@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
def test_a_connection_is_in_the_files_of_both_its_ends(
    network: LiveNetwork, create: Create, serve: Callable[[Sandbox], None], tmp_path: Path, family: int
) -> None:
    client, server = create(network), create(network)
    serve(server)
    address = server.addresses[family]
    with client.capture(tmp_path / "client.pcap"), server.capture(tmp_path / "server.pcap"):
        client.run(["python3", "-c", SEND, address], check=True)
    for name in ("client.pcap", "server.pcap"):
        packets = of(dpkt.tcp.TCP, tmp_path / name)
        assert sent(packets) == TEXT
        ends = {dpkt.utils.inet_to_str(packet.frame.data.dst) for packet in packets}
        assert ends == {client.addresses[family], address}
        assert sum(bool(packet.transport.flags & dpkt.tcp.TH_FIN) for packet in packets) >= 1


def test_times_are_those_of_the_packets(box: Sandbox, talker: Talker, tmp_path: Path) -> None:
    began = time.time()
    with box.capture(tmp_path / "own.pcap"):
        for number in range(50):
            talker.say(str(number))
    packets = read(tmp_path / "own.pcap")
    times = [float(packet.time) for packet in packets]
    assert len(times) == 50
    assert times == sorted(times)
    assert began < times[0] < times[-1] < time.time()
    # Of nanoseconds: in microseconds all would end in zeros.
    assert any(int(packet.time * 10**9) % 1000 for packet in packets)


def test_what_is_said_between_start_and_stop_is_in_the_file_and_once_on_the_loopback_device(
    box: Sandbox, talker: Talker, tmp_path: Path
) -> None:
    for number in range(20):
        talker.say("before")
        with box.capture(tmp_path / "own.pcap") as capture:
            talker.say(f"first {number}")
            talker.say(f"last {number}")
        talker.say("after")
        assert words(tmp_path / "own.pcap") == [f"first {number}".encode(), f"last {number}".encode()]
        assert (capture.packets, capture.dropped) == (2, 0)


def test_counts_are_of_what_is_in_the_file_now(box: Sandbox, talker: Talker) -> None:
    capture = box.capture()
    assert capture.packets == 0
    for number in range(1, 4):
        talker.say("word")
        assert capture.packets == number
        assert len(read(capture.path)) == number
    assert repr(capture) == f"<Capture {capture.path} running>"
    capture.stop()
    capture.stop()
    assert repr(capture) == f"<Capture {capture.path} stopped>"


def test_a_file_without_a_place_goes_with_the_run(box: Sandbox, engine: Engine) -> None:
    with box.capture() as one, box.capture() as other:
        assert one.path != other.path
        assert {os.path.dirname(one.path), os.path.dirname(other.path)} == {engine.run_directory}
    one.discard()
    assert not os.path.exists(one.path)
    one.discard()


def test_packets_are_cut_where_it_was_asked_for(box: Sandbox, talker: Talker, tmp_path: Path) -> None:
    with box.capture(tmp_path / "own.pcap", snaplen=50):
        talker.say("x" * 90)
    with open(tmp_path / "own.pcap", "rb") as file:
        reader = dpkt.pcap.Reader(file)
        assert reader.snaplen == 50
        ((_, data),) = reader
    assert len(data) == 50
    # What there was is said by the packet itself, and in the record before it: 14 + 20 + 8 + 90.
    assert (tmp_path / "own.pcap").read_bytes()[24 + 12 : 24 + 16] == (132).to_bytes(4, sys.byteorder)


def test_it_ends_with_its_sandbox_and_has_all(engine: Engine, tmp_path: Path) -> None:
    with engine.create(SandboxSpec()) as sandbox:
        capture = sandbox.capture(tmp_path / "own.pcap")
        with sandbox.popen(["python3", "-c", TALK], stdin=subprocess.PIPE) as process:
            Talker(process).say("last words")
    assert not capture.is_running
    assert words(tmp_path / "own.pcap") == [b"last words"]


def test_what_a_killed_sandbox_has_said_is_in_the_file(box: Sandbox, talker: Talker, tmp_path: Path) -> None:
    capture = box.capture(tmp_path / "own.pcap")
    talker.say("last words")
    os.kill(box.pid, signal.SIGKILL)
    capture.stop()
    assert words(tmp_path / "own.pcap") == [b"last words"]
    assert capture.packets == 1
    with pytest.raises(SandboxError, match="init"):
        box.run(["true"])  # waits for the end
    with pytest.raises(SandboxClosedError, match=rf"^sandbox {box.name} has ended, and cannot be captured any more"):
        box.capture(tmp_path / "more.pcap")


def test_a_run_ends_though_nobody_stops_what_it_captures(tmp_path: Path, store: str) -> None:
    engine = Engine.open(EngineSettings(store=store))
    sandbox, network = engine.create(SandboxSpec()), engine.network()
    captures = [sandbox.capture(tmp_path / "own.pcap"), network.capture(tmp_path / "all.pcap")]
    with sandbox.popen(["python3", "-c", TALK], stdin=subprocess.PIPE) as process:
        Talker(process).say("last words")
    began = time.monotonic()
    engine.close()
    # A supervisor that does not end is killed after ten seconds.
    assert time.monotonic() - began < 5
    assert words(tmp_path / "own.pcap") == [b"last words"]
    sandbox.close()
    network.close()
    assert [capture.is_running for capture in captures] == [False, False]


def test_what_was_said_before_pytest_was_killed_is_in_the_file(tmp_path: Path, store: str) -> None:
    program = TALK.replace("input()", "'last words'").replace("while", "if")
    argv = [sys.executable, "-c", KILLED, store, str(tmp_path / "own.pcap"), program]
    assert subprocess.run(argv, check=False).returncode == -signal.SIGKILL
    await_runs(store)
    assert words(tmp_path / "own.pcap") == [b"last words"]


def test_a_network_is_captured_as_a_whole_and_each_packet_once(
    engine: Engine, create: Create, serve: Callable[[Sandbox], None], tmp_path: Path
) -> None:
    with engine.network() as network:
        client, server, other = create(network), create(network), create(network)
        serve(server)
        capture = network.capture(tmp_path / "all.pcap")
        for one in (client, other):
            one.run(["python3", "-c", SEND, server.ip], check=True)
        client.run(["python3", "-c", "import socket; socket.create_connection(('10.77.0.1', 53))"], check=True)
    assert not capture.is_running
    packets = of(dpkt.tcp.TCP, tmp_path / "all.pcap")
    syns = [
        tuple(map(dpkt.utils.inet_to_str, (packet.frame.data.src, packet.frame.data.dst)))
        for packet in packets
        if packet.transport.flags == dpkt.tcp.TH_SYN
    ]
    assert syns == [(client.ip, server.ip), (other.ip, server.ip), (client.ip, "10.77.0.1")]
    with pytest.raises(SandboxClosedError, match="LiveNetwork"):
        network.capture()


def test_what_is_not_in_the_file_is_counted(box: Sandbox) -> None:
    with box.capture(buffer=1) as capture:
        (process,) = others_in_its_network(box)
        os.kill(process, signal.SIGSTOP)
        box.run(["python3", "-c", FLOOD], check=True)
        os.kill(process, signal.SIGCONT)
    # Nobody listens, and who sends is told so, too.
    packets = of(dpkt.udp.UDP, capture.path)
    assert 0 < len(packets) < 200
    assert len(read(capture.path)) == capture.packets
    assert capture.packets + capture.dropped == 2 * 200


def others_in_its_network(sandbox: Sandbox) -> list[int]:
    network, processes = (os.stat(f"/proc/{sandbox.pid}/ns/{name}") for name in ("net", "pid"))
    return [
        int(entry.name)
        for entry in os.scandir("/proc")
        if entry.name.isdigit() and is_in(entry.path, "net", network) and not is_in(entry.path, "pid", processes)
    ]


def is_in(process: str, name: str, namespace: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(f"{process}/ns/{name}"), namespace)
    except OSError:
        # Somebody else's, or gone.
        return False


@pytest.mark.needs("root")
def test_a_full_disk_is_said_and_the_file_ends_behind_a_whole_packet(
    engine: Engine, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", str(tmp_path)], check=True)
    # Its processes go a little later than the sandbox.
    request.addfinalizer(lambda: subprocess.run(["umount", "--lazy", str(tmp_path)], check=True))
    sandbox = engine.create(SandboxSpec())
    with (
        sandbox,
        pytest.raises(FileAccessError, match=r"captured packets cannot be written to .*: No space left") as met,
        sandbox.capture(tmp_path / "own.pcap"),
    ):
        sandbox.run(["python3", "-c", FLOOD], check=True)
    assert met.value.filename == str(tmp_path / "own.pcap")
    for _, frame in read(tmp_path / "own.pcap"):
        assert len(frame) in (60042, 590)


@pytest.mark.needs("tcpdump")
def test_tcpdump_reads_it(box: Sandbox, talker: Talker, tmp_path: Path) -> None:
    with box.capture(tmp_path / "own.pcap"):
        talker.say("word")
    said = subprocess.run(["tcpdump", "-nr", str(tmp_path / "own.pcap")], capture_output=True, text=True, check=True)
    assert "IP 127.0.0.1.7123 > 127.0.0.1.7123: UDP, length 4" in said.stdout


def test_a_sandbox_on_the_hosts_network_is_not_captured(create: Create) -> None:
    with pytest.raises(SpecError, match="is on the host's network, whose packets are not its own") as met:
        create(network="host").capture()
    assert met.value.hint == "leave out network='host', or capture on the host with tcpdump"


def test_one_with_a_network_of_its_own_is_captured(create: Create, tmp_path: Path) -> None:
    sandbox = create(network=Network())
    with sandbox.capture(tmp_path / "own.pcap"):
        sandbox.run(["python3", "-c", "import socket; socket.create_connection(('10.77.0.1', 53))"], check=True)
    assert of(dpkt.tcp.TCP, tmp_path / "own.pcap")


def test_a_path_that_cannot_be_written_is_said(box: Sandbox, tmp_path: Path) -> None:
    missing = tmp_path / "none" / "own.pcap"
    with pytest.raises(
        FileAccessError, match=rf"^captured packets cannot be written to {missing}: No such file"
    ) as met:
        box.capture(missing)
    assert isinstance(met.value, OSError)
    with pytest.raises(FileAccessError, match="Is a directory"):
        box.capture(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(SpecError, match=r"packets are written to regular files, and .*/pipe is none"):
        box.capture(tmp_path / "pipe")
    os.close(reader)


@pytest.mark.parametrize(
    "words", [{"snaplen": 0}, {"snaplen": True}, {"buffer": -1}, {"buffer": "1M"}, {"buffer": 1 << 31}]
)
def test_numbers_that_are_none_are_refused(box: Sandbox, words: dict[str, Any]) -> None:
    ((name, value),) = words.items()
    with pytest.raises(SpecError, match=f"{name}={value!r} is no number from 1 ") as met:
        box.capture(**words)
    assert met.value.hint.startswith("it is how many bytes")
