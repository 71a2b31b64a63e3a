"""SWUpdate's progress messages, in both of their forms."""

import socket
import struct
import threading
from pathlib import Path

import pytest

from device_client.installers.swupdate_progress import SOCKET, ProgressReader, Step, StepParser

STEP = Step("running", 1, 3, 40, "rootfs.img", "raw")


def in_memory(status: int = 2, percent: int = 40) -> bytes:
    """As 2022.12 sends it on a 64-bit machine: 2416 bytes."""
    head = struct.pack("@IiIQIII", 0, status, 0, 0, 3, 1, percent)
    return (head + b"rootfs.img".ljust(256, b"\0") + b"raw".ljust(64, b"\0")).ljust(2416, b"\0")


def packed(word: int = 0x20000) -> bytes:
    """As 2024.05 sends it: 2408 bytes."""
    head = struct.pack("<IIIQIII", word, 2, 0, 0, 3, 1, 40)
    return (head + b"rootfs.img".ljust(256, b"\0") + b"raw".ljust(64, b"\0")).ljust(2408, b"\0")


@pytest.mark.parametrize("size", [1, 7, 2415, 100_000])
@pytest.mark.parametrize(
    "data",
    [in_memory() * 2, packed() * 2, struct.pack("<I4s", 0x20000, b"ACK\0") + packed() * 2],
    ids=["in memory", "packed", "packed, acknowledged"],
)
def test_both_forms(data: bytes, size: int) -> None:
    """Told apart by the first word, however the bytes are cut."""
    parser = StepParser()
    steps = [step for at in range(0, len(data), size) for step in parser.feed(data[at : at + size])]
    assert steps == [STEP, STEP] and not parser.lost


def test_unknown_form() -> None:
    """A form of a later version makes no steps, and nothing is kept of it."""
    parser = StepParser()
    assert parser.feed(packed(0x30000)) == [] and parser.lost
    assert parser.feed(in_memory()) == []


def test_words() -> None:
    """A step is a line; a status without an image is a word, and an unknown one a number."""
    assert str(STEP) == "1/3 rootfs.img (raw)  40 %"
    assert str(Step("succeeded", 0, 0, 0, "", "")) == "succeeded"
    assert StepParser().feed(in_memory(99))[0].status == "status 99"


def test_reader(tmp_path: Path) -> None:
    """It waits for the socket, notes each step once, and ends when it is told to."""
    said = threading.Event()

    def serve() -> None:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(tmp_path / SOCKET))
            server.listen()
            line, _ = server.accept()
            with line:
                line.sendall(in_memory() + in_memory() + in_memory(percent=80))
                said.wait(5)

    with ProgressReader(tmp_path) as progress:
        server = threading.Thread(target=serve)
        server.start()
        for _ in range(500):
            if " 80 %" in progress.text:
                break
            threading.Event().wait(0.01)
    said.set()
    server.join()
    assert progress.text.splitlines() == ["1/3 rootfs.img (raw)  40 %", "1/3 rootfs.img (raw)  80 %"]


def test_reader_without_a_socket(tmp_path: Path) -> None:
    """A program that never made it leaves nobody waiting."""
    with ProgressReader(tmp_path) as progress:
        pass
    assert progress.text == ""
