"""Everything that writes a file does it by `files.write`: reports, checkpoints, generated code."""

import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

import downslope
import downslope.lab
from downslope import files
from downslope.lab.report import page as report

posix = pytest.mark.skipif(os.name == "nt", reason="POSIX files")


def _save(path):
    downslope.Optimizer(np.ones(2), downslope.sgd).save(path)


def _report(path):
    report.write_report(downslope.lab.race("parabola", [downslope.sgd], **SMALL), path)


SMALL = {"learning_rates": [0.01], "tuning_seeds": 1, "confirming_seeds": 0, "verdict_seeds": 1}
WRITERS = {"write": lambda path: files.write(path, "text"), "checkpoint": _save, "report": _report}


def _made(kind, path):
    """Something that is no regular file."""
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":  # the null device, under another name
        try:
            os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        except PermissionError:
            pytest.skip("only root can make devices")
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as own:
            os.chdir(path.parent)  # the name of a socket may not be long
            own.bind(path.name)
    else:
        path.symlink_to(path)
    return path


@posix
@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "socket", "loop"])
@pytest.mark.parametrize("linked", [False, True])
def test_what_is_no_file_is_refused_and_left_as_it_is(writer, kind, linked, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if writer == "report" and (kind, linked) != ("device", False):
        return  # the same call, after a race
    path = _made(kind, tmp_path / "out")
    before = path.lstat()
    if linked:
        (tmp_path / "link").symlink_to(path)
    with pytest.raises(OSError, match=r"cannot write to .*: it is a .*; give the name of a file"):
        WRITERS[writer](tmp_path / ("link" if linked else "out"))
    after = path.lstat()
    assert (after.st_ino, after.st_mode, after.st_mtime_ns) == (before.st_ino, before.st_mode, before.st_mtime_ns)
    assert sorted(p.name for p in tmp_path.iterdir()) == (["link", "out"] if linked else ["out"])


@posix
@pytest.mark.parametrize("writer", ["write", "checkpoint"])
@pytest.mark.parametrize("there", [False, True])
def test_links_are_written_through_and_permissions_stay(writer, there, tmp_path):
    (tmp_path / "away").mkdir()
    target = tmp_path / "away" / "file"
    if there:
        target.write_text("old")
        target.chmod(0o640)
    (tmp_path / "link").symlink_to("away/file")
    (tmp_path / "second").symlink_to("link")
    WRITERS[writer](tmp_path / "second")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "second").is_symlink()
    assert not target.is_symlink()
    assert target.stat().st_size > 3
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(target.stat().st_mode) == (0o640 if there else 0o666 & ~mask)
    assert [p.name for p in target.parent.iterdir()] == ["file"]


@posix
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away")
def test_the_owner_stays(tmp_path):
    file = tmp_path / "file"
    file.write_text("old")
    os.chown(file, 1234, 4321)
    files.write(file, "new")
    assert (file.stat().st_uid, file.stat().st_gid, file.read_text()) == (1234, 4321, "new")


NOBODY = """
import os, sys
from downslope import files

if os.geteuid() == 0:  # for root there is no read-only file
    os.setresuid(65534, 65534, 65534)
try:
    files.write(sys.argv[1], "new")
except PermissionError as error:
    print(error)
"""


@posix
def test_a_read_only_file_or_folder_is_left_to_whoever_made_it_so():
    with tempfile.TemporaryDirectory() as folder:  # into which anybody can look
        Path(folder).chmod(0o777)
        file, inside = Path(folder) / "file", Path(folder) / "closed"
        file.write_text("old")
        file.chmod(0o444)
        inside.mkdir(mode=0o555)
        for path, reason in (
            (file, "the file is read-only"),
            (inside / "file", "nothing can be written in the folder"),
        ):
            command = [sys.executable, "-c", NOBODY, str(path)]
            assert reason in subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert file.read_text() == "old"
        assert not list(inside.iterdir())
        inside.chmod(0o777)


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    file = tmp_path / "file"
    file.write_text("old")

    def pieces():
        yield b"half of "
        raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError, match="full"):
        files.write(file, pieces())
    with pytest.raises(UnicodeEncodeError):
        files.write(file, "new" * 10_000 + "\ud800")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_long_names_and_missing_folders(tmp_path):
    name = "n" * 250
    files.write(tmp_path / name, "text")
    assert (tmp_path / name).read_text() == "text"
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        files.write(tmp_path / "missing" / "file", "text")


KILLED = """
import os, sys
from downslope import files

def pieces():
    yield b"begun"
    print("writing", flush=True)
    sys.stdin.read()  # until somebody kills this

files.write(sys.argv[1], pieces())
"""


@posix
def test_what_a_killed_writer_left_is_gone_after_the_next_start_and_a_living_one_is_let_be(tmp_path):
    path = tmp_path / "page.html"
    (tmp_path / ".page.html.notes").write_text("of somebody else")
    command = [sys.executable, "-c", KILLED, str(path)]
    writers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(2)]
    try:
        for writer in writers:
            assert writer.stdout.readline() == b"writing\n"
        writers[0].send_signal(signal.SIGKILL)
        writers[0].wait()
        drafts = [p for p in tmp_path.iterdir() if p.suffix == ".part"]
        assert len(drafts) == 2
        files.check(path)
        assert len([p for p in tmp_path.iterdir() if p.suffix == ".part"]) == 1
        writers[1].communicate()  # ends its input, and so its writing
        assert path.read_text() == "begun"
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
            writer.stdout.close()
            writer.stdin.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == [".page.html.notes", "page.html"]


@posix
@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_an_open_stream_is_written_to(name, tmp_path):
    command = [sys.executable, "-c", f"from downslope import files; files.write({name!r}, 'täxt')"]
    assert subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout == "täxt".encode()
    with (tmp_path / "log").open("w") as log:
        log.write("before, ")
        log.flush()
        subprocess.run(command, stdout=log, check=True)
    assert (tmp_path / "log").read_text() == "before, täxt"
