"""Where captioned pictures lie: image folders, tars, tables, pictures with words beside them, hub datasets.

A row is {column: value}; a picture in it is bytes or a Path.
"""

import csv
import glob
import itertools
import json
import re
import tarfile
from pathlib import Path, PurePosixPath

from .files import ArtifactError

SUFFIXES = "png jpg jpeg webp gif bmp tif tiff".split()  # of pictures
WORDS = "txt text caption json".split()  # and of what is said of them beside them
FILES = "file_name filename file image image_path image_file img path".split()  # columns
HUB_NAME = re.compile(r"(?!.*\.(tar|parquet|csv|jsonl)$)\w[\w.-]*(/\w[\w.-]*)?")
ADVICE = "give an image folder with metadata.csv, .tar or .parquet files, or a hub dataset"


def columns(row, names):
    """The columns of a row that have one of `names`, in their order; capitals do not count."""
    known = {str(column).strip().lower(): column for column in row}
    return [known[name] for name in names if name in known]


def find(source):
    """[(reader, file, its folder in the source)] of the first kind of READERS that `source` names here.

    Or else of a folder of pictures with words beside them, or of the hub's dataset. Files are sorted.
    Raises ArtifactError where `source` is not there, or a file is truncated.
    """
    try:
        path = Path(source or "nothing given").expanduser()
        here = {path, *map(Path, glob.glob(str(path), recursive=True))}
        for pattern, (read, end) in READERS.items():
            named = path.rglob(pattern) if path.is_dir() else here
            files = sorted(file for file in named if file.match(pattern) and file.is_file())
            if any(not _ends(cut := file, end) for file in files):
                raise ArtifactError(f"{cut} is truncated: restore it or leave it out")
            if files:
                return [(read, f, f.parent.relative_to(path) if path.is_dir() else Path()) for f in files]
        if path.is_dir() and next(_beside(path), None):
            return [(_loose, path, Path())]
        if HUB_NAME.fullmatch(source) and not path.exists():
            return [(_hub, source, Path())]
    except (OSError, RuntimeError) as error:  # no such user's home
        raise ArtifactError(f"{source} cannot be read ({error}): {ADVICE}") from None
    raise ArtifactError(f"there is no metadata.csv, .tar or .parquet file at {source}: {ADVICE}")


def _ends(file, end):
    """Whether a file ends as a whole one does: tarfile takes many a truncated tar for a whole one."""
    with open(file, "rb") as stream:
        stream.seek(max(0, file.stat().st_size - 512))
        return stream.read().endswith(end)


# The readers: (name of the picture, {column: value}) of each row of a file.


def _csv(file):
    with open(file, encoding="utf-8-sig", newline="") as stream:
        rows = csv.DictReader(stream)
        for row in _located(rows, file):
            if None in row[1]:
                raise ValueError(f"line {rows.line_num} has more fields than the header: quote its commas")
            yield row


def _jsonl(file):
    with open(file, encoding="utf-8-sig") as stream:
        yield from _located((dict(json.loads(line)) for line in stream if line.strip()), file)


def _parquet(file):
    from pyarrow import parquet

    with parquet.ParquetFile(file) as table:
        rows = (row for batch in table.iter_batches(64) for row in batch.to_pylist())
        yield from _located(rows, file)


def _tar(file):
    with tarfile.open(file) as tar:
        yield from _samples(
            (member.name, tar.extractfile(member).read())
            for member in tar
            if member.isfile() and _suffix(member.name) in SUFFIXES + WORDS
        )


def _loose(folder):
    yield from _samples(
        (file.relative_to(folder).as_posix(), file if _suffix(file) in SUFFIXES else file.read_bytes())
        for file in sorted(_beside(folder, WORDS + SUFFIXES), key=lambda file: (_sample(file), file))
    )


def _hub(name):
    """It is streamed; opening it prints nothing and writes nothing."""
    import datasets
    import fsspec

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False  # it would report the reading

    def whole(row):
        for value in row.values():
            if isinstance(value, dict) and value.get("path") and not value.get("bytes", True):
                with fsspec.open(value["path"]) as stream:
                    value["bytes"] = stream.read()
        return row

    try:
        splits = datasets.load_dataset(name, streaming=True, cache_dir="memory://")
        yield from _located(map(whole, splits.get("train", next(iter(splits.values()))).decode(False)))
    except Exception as error:  # `datasets` passes on whatever its parsers raise
        raise ValueError(f"{type(error).__name__}: {error}") from error


READERS = {  # in this order: img2dataset writes tables without pictures beside its tars
    "metadata.csv": (_csv, b""),
    "metadata.jsonl": (_jsonl, b""),
    "metadata.parquet": (_parquet, b"PAR1"),
    "*.tar": (_tar, bytes(512)),
    "*.parquet": (_parquet, b"PAR1"),
}


def failures():
    """What the readers raise on damaged files."""
    from pyarrow import ArrowException

    damaged = (OSError, ValueError, TypeError, EOFError, OverflowError, RecursionError)
    return *damaged, csv.Error, tarfile.TarError, ArrowException


def _suffix(name):
    return PurePosixPath(name).suffix[1:].lower()


def _sample(name):
    """A sample's name ends at its first dot."""
    path = PurePosixPath(name)
    return str(path.with_name(path.name.partition(".")[0] or path.name))


def _beside(folder, suffixes=SUFFIXES):
    return (file for file in folder.rglob("*") if _suffix(file) in suffixes and file.is_file())


def _samples(members):
    """Rows of (name, content) in the order of samples: a picture's row has the words beside it by suffix.

    They are those under its whole name if any picture of the sample has such, else all of the sample's.
    """
    for _, sample in itertools.groupby(members, lambda member: _sample(member[0])):
        found, words = [], {}
        for name, content in sample:
            stem, suffix = name.rpartition(".")[0], _suffix(name)
            if suffix in SUFFIXES:
                found.append((stem, name, content))
            else:
                said = dict(json.loads(content)) if suffix == "json" else {suffix: content}
                words[stem] = words.get(stem, {}) | said
        own = any(stem in words for stem, *_ in found)
        everything = {column: value for said in words.values() for column, value in said.items()}
        for stem, name, content in found:
            said = words.get(stem, {}) if own else everything
            yield name, said | {_suffix(name): content}


def _located(rows, table=None):
    """(name, row) of the rows of a file `table`, with paths beside it in place of the names of files.

    Of no local file names stay names, and only what lies in the row is a picture.
    """
    folder = table and table.parent
    for number, row in enumerate(rows):
        name = f"{table.stem} {number}" if table else f"row {number}"
        for column, value in row.items():
            if isinstance(value, list) and value and isinstance(value[0], dict):
                value = value[0]
            if isinstance(value, dict) and {"bytes", "path"} & value.keys():
                path = value.get("path")
                row[column] = value.get("bytes") or (folder and path and folder / path)
                name = path or name
        for column in columns(row, FILES):
            if isinstance(row[column], str) and row[column] and folder:
                name = row[column].replace("\\", "/")  # written on Windows
                row[column] = folder / name
                break
        yield name, row
