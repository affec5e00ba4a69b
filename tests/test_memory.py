"""The memory that is counted as available: the machine's, the container's, the process's own."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from ketfit import expectation, memory
from ketfit.circuit import Circuit
from ketfit.errors import InsufficientMemoryError
from ketfit.memory import available_memory, memory_shortage

MIB = 2**20
UNLIMITED_V1 = 9223372036854771712


class Groups:
    """A made `/proc/self` and a made mount of control groups."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.proc, self.mount = folder / "proc", folder / "a mount"
        self.proc.mkdir()
        self.mount.mkdir()
        monkeypatch.setattr(memory, "PROC", self.proc)

    def enter(self, version: int, path: str, root: str = "/") -> None:
        """Put the process into the group `path` of the hierarchy whose part from `root` on is mounted."""
        kind, options = ("cgroup2", "rw") if version == 2 else ("cgroup", "rw,memory")
        mount = str(self.mount).replace(" ", "\\040")
        others = ["22 1 0:5 / / rw - ext4 /dev/vda rw", "31 25 0:26 / /sys/fs/cgroup/cpu rw shared:9 - cgroup c rw,cpu"]
        own = f"35 25 0:30 {root} {mount} ro,nosuid shared:7 - {kind} none {options}"
        (self.proc / "mountinfo").write_text("\n".join([*others, own]) + "\n")
        (self.proc / "cgroup").write_text(f"5:cpu,cpuacct:/other\n{'0:' if version == 2 else '4:memory'}:{path}\n")

    def limit(self, version: int, path: str, limit: int | str, used: int, cached: int = 0) -> None:
        """Write the files of one group."""
        folder = self.mount / path
        folder.mkdir(parents=True, exist_ok=True)
        names = ("max", "current") if version == 2 else ("limit_in_bytes", "usage_in_bytes")
        for name, value in zip(names, (limit, used), strict=True):
            (folder / f"memory.{name}").write_text(f"{value}\n")
        entry = "inactive_file" if version == 2 else "total_inactive_file"
        (folder / "memory.stat").write_text(f"anon 12\n{entry} {cached}\nactive_file 99\n")


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Groups:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=2**40))
    return Groups(tmp_path, monkeypatch)


@pytest.mark.parametrize("version", [1, 2])
class TestControlGroup:
    def test_available_memory_is_limit_minus_use(self, groups: Groups, version: int) -> None:
        groups.enter(version, "/job")
        groups.limit(version, "job", 500 * MIB, 120 * MIB)
        assert available_memory() == 380 * MIB

    def test_available_memory_counts_reclaimable_cache_as_free(self, groups: Groups, version: int) -> None:
        groups.enter(version, "/job")
        groups.limit(version, "job", 500 * MIB, 480 * MIB, cached=300 * MIB)
        assert available_memory() == 320 * MIB

    def test_available_memory_uses_tightest_group(self, groups: Groups, version: int) -> None:
        groups.enter(version, "/slice/pod/job")
        groups.limit(version, "slice", 900 * MIB, 0)
        groups.limit(version, "slice/pod", 200 * MIB, 50 * MIB)
        groups.limit(version, "slice/pod/job", "max" if version == 2 else UNLIMITED_V1, 50 * MIB)
        assert available_memory() == 150 * MIB

    def test_available_memory_in_container_with_own_root(self, groups: Groups, version: int) -> None:
        groups.enter(version, "/")
        groups.limit(version, "", 300 * MIB, 100 * MIB)
        assert available_memory() == 200 * MIB

    @pytest.mark.parametrize(("path", "root"), [("/docker/abc", "/docker/abc"), ("/docker/abc", "/elsewhere")])
    def test_available_memory_in_container_with_host_path(
        self, groups: Groups, version: int, path: str, root: str
    ) -> None:
        groups.enter(version, path, root)
        groups.limit(version, "", 300 * MIB, 100 * MIB)
        assert available_memory() == 200 * MIB

    def test_available_memory_follows_path_below_mounted_root(self, groups: Groups, version: int) -> None:
        groups.enter(version, "/docker/abc/worker", "/docker/abc")
        groups.limit(version, "", 300 * MIB, 100 * MIB)
        groups.limit(version, "worker", 80 * MIB, 10 * MIB)
        assert available_memory() == 70 * MIB

    def test_available_memory_of_group_beyond_limit_is_zero(self, groups: Groups, version: int) -> None:
        groups.enter(version, "/job")
        groups.limit(version, "job", 100 * MIB, 130 * MIB)
        assert available_memory() == 0

    def test_available_memory_without_limit_is_that_of_machine(self, groups: Groups, version: int) -> None:
        groups.enter(version, "/job")
        groups.limit(version, "job", "max" if version == 2 else UNLIMITED_V1, 5 * MIB)
        assert available_memory() == 2**40

    def test_circuit_beyond_memory_limit_is_refused_before_allocation(self, groups: Groups, version: int) -> None:
        groups.enter(version, "/job")
        groups.limit(version, "job", 1000 * MIB, 900 * MIB)
        with pytest.raises(InsufficientMemoryError, match=r"on 28 qubits need .* and 0\.1 GiB are free"):
            expectation(Circuit(28, (), 0, 0), torch.zeros(0))


def test_available_memory_without_control_groups_is_that_of_machine(groups: Groups) -> None:
    assert available_memory() == 2**40


@pytest.fixture
def own_limit(request: pytest.FixtureRequest) -> Iterator[int]:
    """So many bytes are left below this process's limit of the kind that the test names."""
    kind, used = request.param
    soft, hard = resource.getrlimit(kind)
    left = 400 * MIB
    resource.setrlimit(kind, (getattr(psutil.Process().memory_info(), used) + left, hard))
    try:
        yield left
    finally:
        resource.setrlimit(kind, (soft, hard))


@pytest.mark.parametrize(
    "own_limit", [(resource.RLIMIT_AS, "vms"), (resource.RLIMIT_DATA, "data")], ids=["as", "data"], indirect=True
)
def test_available_memory_respects_process_limits(own_limit: int) -> None:
    assert 0.8 * own_limit < available_memory() < 1.2 * own_limit
    with pytest.raises(InsufficientMemoryError, match="on 28 qubits need"):
        expectation(Circuit(28, (), 0, 0), torch.zeros(0))


def test_memory_shortage_is_the_available_memory_or_none() -> None:
    assert memory_shortage(2**30, lambda: 2**29) == 2**29
    assert memory_shortage(2**30, lambda: 2**30) is None
    assert memory_shortage(memory.ALWAYS_AVAILABLE, lambda: pytest.fail("asked for a little")) is None
