"""Flower's programs as processes on the loopback interface, with or without TLS.

Every wait is bounded, and every process that a test starts is ended by the test.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

ROOT = Path(__file__).resolve().parents[3]
QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "OMP_NUM_THREADS": "1",
}


class Flower:
    """Flower's programs with a home, a working directory, ports and, if they are secure, certificates of their own.

    Attributes
    ----------
    may_fail
        Programs that may end while something is waited for.
    """

    def __init__(self, folder: Path, *, secure: bool = False) -> None:
        self.folder = folder
        self.secure = secure
        self.cwd = folder / "cwd"  # Flower's workers import from there first, so it must hold no code
        self.cwd.mkdir()
        home = folder / "home"
        home.mkdir()
        self.port = free_port()
        if secure:
            write_certificates(folder)
        safety = f'root-certificates = "{folder}/ca.crt"' if secure else "insecure = true"
        (home / "config.toml").write_text(
            f'[superlink]\ndefault = "here"\n[superlink.here]\naddress = "127.0.0.1:{self.port}"\n{safety}\n'
        )
        self._bin = Path(sys.executable).parent
        self._environment = {
            **os.environ,
            **QUIET,
            "FLWR_HOME": str(home),
            "PATH": f"{self._bin}{os.pathsep}{os.environ['PATH']}",
        }
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.may_fail: set[str] = set()

    def start(self, name: str, program: str, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start a program that goes on until it is done, killed, or the test is over."""
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [str(self._bin / program), *arguments],
                cwd=self.cwd,
                env=self._environment | environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._processes[name] = process
        return process

    def start_superlink(self, *arguments: str) -> None:
        """Start a SuperLink and wait until it answers."""
        files = {"--ssl-ca-certfile": "ca.crt", "--ssl-certfile": "server.crt", "--ssl-keyfile": "server.key"}
        safety = [part for option, file in files.items() for part in (option, str(self.folder / file))]
        safety = [*safety, "--enable-supernode-auth"] if self.secure else ["--insecure"]
        place = ["--host", "127.0.0.1", "--port", str(self.port)]
        self.start("superlink", "flower-superlink", *safety, *place, *arguments)
        self.wait("the SuperLink's health", self._is_healthy, 120)

    def start_supernode(self, name: str, partition: int, *safety: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start a SuperNode that is this partition."""
        place = ["--superlink", f"127.0.0.1:{self.port}", "--port", str(free_port())]
        config = ["--node-config", f"partition-id={partition}"]
        return self.start(name, "flower-supernode", *(safety or ["--insecure"]), *place, *config, **environment)

    def identity(self, name: str) -> list[str]:
        """A SuperNode's options for a key of its own, and to check who the SuperLink is."""
        write_key(self.folder / name)
        key = ["--auth-supernode-private-key", str(self.folder / name)]
        return ["--root-certificates", str(self.folder / "ca.crt"), *key]

    def do(self, *commands: Sequence[str]) -> None:
        """Let `flwr` do some things that take a moment, all at once."""
        processes = [self.start(f"flwr{number}", "flwr", *command) for number, command in enumerate(commands)]
        assert [process.wait(60) for process in processes] == [0] * len(processes), self.logs()

    def begin(self, experiment: str, out: Path, *arguments: str, **options: str | bool | float) -> Callable[[], bool]:
        """`flwr run` this project; returns a function that says whether the run is over."""
        values = {"experiment": experiment, "out": str(out), "pictures": False, **options}
        file = self.folder / "run.toml"
        file.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items()))
        program = self.start("run", "flwr", "run", str(ROOT), "here", "--stream", "--run-config", str(file), *arguments)
        return lambda: (out / "summary.json").exists() or program.poll() is not None

    def run(self, experiment: str, out: Path, *arguments: str, **options: str | bool | float) -> None:
        """`flwr run` this project, and wait until the run has ended well."""
        self.wait("the run's end", self.begin(experiment, out, *arguments, **options), 400)
        assert (out / "summary.json").exists(), f"the run failed:\n{self.logs()}"

    def says(self, name: str, text: str, count: int = 1) -> Callable[[], bool]:
        """A function that tells whether a program's log has a text so often."""
        return lambda: self.log(name).count(text) >= count

    def log(self, name: str) -> str:
        """What a program has written so far."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def wait(self, what: str, happened: Callable[[], bool], seconds: float) -> None:
        """Wait until something has happened, while every process that should go on does."""
        end = time.monotonic() + seconds
        while not happened():
            dead = [name for name, process in self._processes.items() if process.poll() not in (None, 0)]
            dead = [name for name in dead if name not in self.may_fail]
            assert not dead, f"waiting for {what}, {dead} ended:\n{self.logs()}"
            assert time.monotonic() < end, f"{what} did not come within {seconds:g} s:\n{self.logs()}"
            time.sleep(0.2)

    def logs(self) -> str:
        """The ends of all logs."""
        return "\n".join(
            f"--- {log.name}\n{log.read_text(errors='replace')[-3000:]}" for log in self.folder.glob("*.log")
        )

    def kill(self, name: str) -> None:
        """Kill a program and what it has started, as a machine that loses power does."""
        process = self._processes.pop(name)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=15)

    def stop(self) -> None:
        """End every process that was started, and the processes of its session."""
        for signal_number in (signal.SIGTERM, signal.SIGKILL):
            for process in reversed(self._processes.values()):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal_number)
            for process in self._processes.values():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=15)

    def _is_healthy(self) -> bool:
        trust = ssl.create_default_context(cafile=str(self.folder / "ca.crt")) if self.secure else None
        url = f"http{'s' if self.secure else ''}://127.0.0.1:{self.port}/health"
        try:
            with urllib.request.urlopen(url, timeout=2, context=trust) as response:
                return bool(response.status == 200)
        except (urllib.error.URLError, OSError):
            return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write_certificates(folder: Path) -> None:
    """An authority's certificate `ca.crt`, and a server's, signed by it: `server.crt` and `server.key`."""
    authority, server = (ec.generate_private_key(ec.SECP384R1()) for _ in range(2))
    root = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test authority")])
    begin = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)

    def sign(name: x509.Name, key: ec.EllipticCurvePrivateKey, *extensions: x509.ExtensionType) -> bytes:
        builder = x509.CertificateBuilder(root, name, key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(begin).not_valid_after(begin + datetime.timedelta(days=1))
        for extension in extensions:
            builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        return builder.sign(authority, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    places = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    (folder / "ca.crt").write_bytes(sign(root, authority, x509.BasicConstraints(ca=True, path_length=None)))
    (folder / "server.crt").write_bytes(sign(x509.Name([]), server, places))
    (folder / "server.key").write_bytes(private(server, serialization.PrivateFormat.PKCS8))


def write_key(path: Path) -> None:
    """A SuperNode's private key as OpenSSH writes them, and beside it the public one."""
    key = ec.generate_private_key(ec.SECP384R1())
    path.write_bytes(private(key, serialization.PrivateFormat.OpenSSH))
    formats = (serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    path.with_name(f"{path.name}.pub").write_bytes(key.public_key().public_bytes(*formats))


def private(key: ec.EllipticCurvePrivateKey, form: serialization.PrivateFormat) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


@pytest.fixture
def flower(tmp_path: Path) -> Iterator[Flower]:
    """Flower without TLS."""
    flower = Flower(tmp_path)
    try:
        yield flower
    finally:
        flower.stop()


@pytest.fixture
def secure_flower(tmp_path: Path) -> Iterator[Flower]:
    """Flower with TLS, whose SuperLink knows its SuperNodes by their keys."""
    flower = Flower(tmp_path, secure=True)
    try:
        yield flower
    finally:
        flower.stop()


@pytest.fixture(scope="session")
def flower_programs() -> type[Flower]:
    """Makes Flower's programs in a folder; whoever makes them stops them."""
    return Flower
