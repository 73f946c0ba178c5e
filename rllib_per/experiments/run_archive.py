# SPDX-License-Identifier: MIT
"""What `evaluate` and `play` need of a run, as one zip file that may come from anywhere.

    config.yaml             the resolved configuration
    policy.safetensors      the policy

Both are stored as they are. A reader takes these two, not compressed, and refuses all else, so that
nothing is written outside its own folder and nothing grows when it is unpacked.
"""

from __future__ import annotations

import io
import shutil
import stat
import struct
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rllib_per.experiments.run_folder import RunFolder

# The end of a zip file without a comment: members and the bytes of their list.
_END = struct.Struct("<4s4H2LH")
_MAX_LIST_BYTES = 10_000
_MAX_CONFIG_BYTES = 1_000_000
_MAX_POLICY_BYTES = 4_000_000_000


def archive_bytes(run: RunFolder) -> bytes:
    """The archive of a run; the same run always gives the same bytes.

    Raises:
        FileNotFoundError: The run has saved no policy.
    """
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_STORED) as archive:
        for path in _members(run):
            archive.writestr(zipfile.ZipInfo(path.name), path.read_bytes())
    return data.getvalue()


@contextmanager
def opened(path: Path) -> Iterator[RunFolder]:
    """A run folder, or what an archive holds of one, in a folder that is gone afterwards.

    Raises:
        FileNotFoundError: `path` holds no run.
        ValueError: It is no archive of a run, is damaged, or holds anything else.
    """
    if path.is_dir():
        yield RunFolder.open(path)
        return
    with tempfile.TemporaryDirectory(prefix="rllib-per-") as folder:
        # Titles show the names of the run and the folder that it is in.
        run = RunFolder(Path(folder) / path.resolve().parent.name / path.name)
        run.path.mkdir(parents=True)
        try:
            _unpack(path, run)
        except (zipfile.BadZipFile, struct.error, EOFError, RuntimeError, OSError) as error:
            raise ValueError(f"{path} is no archive of a run, or damaged: {error}") from error
        yield RunFolder.open(run.path)


def _members(run: RunFolder) -> tuple[Path, Path]:
    return run.config, run.policy


def _unpack(path: Path, run: RunFolder) -> None:
    if not path.is_file():
        raise ValueError(f"{path} is no archive of a run: it is not a file")
    _check_list(path)
    limits = dict(zip(_members(run), (_MAX_CONFIG_BYTES, _MAX_POLICY_BYTES), strict=True))
    with zipfile.ZipFile(path) as archive:
        given = sorted(member.filename for member in archive.infolist())
        if given != sorted(target.name for target in limits):
            raise ValueError(
                f"{path} must hold {' and '.join(t.name for t in limits)}, and nothing else: got "
                f"{', '.join(map(repr, given)) or 'nothing'}; make it with `rllib-per export`"
            )
        for target, limit in limits.items():
            member = archive.getinfo(target.name)
            kind = stat.S_IFMT(member.external_attr >> 16)
            if member.compress_type != zipfile.ZIP_STORED or kind not in (0, stat.S_IFREG):
                raise ValueError(
                    f"{target.name} in {path} must be a file that is stored, not compressed: make "
                    "the archive with `rllib-per export`"
                )
            if not member.file_size == member.compress_size <= limit:
                raise ValueError(
                    f"{target.name} in {path} must be of {limit:,} bytes at most: got "
                    f"{member.file_size:,}"
                )
            with archive.open(member) as source, target.open("xb") as file:
                shutil.copyfileobj(source, file)


def _check_list(path: Path) -> None:
    """Look at the end of the file before all of the list, which is as long as it says, is read."""
    with path.open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(max(size - _END.size, 0))
        end = file.read(_END.size)
    if len(end) < _END.size or not end.startswith(b"PK\5\6"):
        raise ValueError(
            f"{path} is no archive of a run, or damaged: make it with `rllib-per export`"
        )
    num_bytes = _END.unpack(end)[5]
    if num_bytes > _MAX_LIST_BYTES:
        raise ValueError(
            f"the list of what {path} holds must be of {_MAX_LIST_BYTES:,} bytes at most: got "
            f"{num_bytes:,}"
        )
