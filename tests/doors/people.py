"""The doors of what people bring: label files, the label store, pictures, captioned sets."""

import html
import io
import json
import tarfile
from functools import partial

import numpy as np
import pandas as pd
from conftest import save_images
from doors import kinds
from doors.doors import Door, objects, of_file, tables
from PIL import Image

from rlhf_nb import config, data, files, generate
from rlhf_nb.config import UserError
from rlhf_nb.feedback import files as labels
from rlhf_nb.feedback import raters, widgets
from rlhf_nb.feedback.store import Store, Votes
from rlhf_nb.pictures import ImageFolder

PROMPTS = ["Two cats.", "A red cup.", "Three stars."]


def pictures(count=3, side=64):
    rng = np.random.default_rng(0)
    return rng.integers(0, 255, (count, side, side, 3), dtype=np.uint8)


def image_folder(folder):
    save_images(folder, pictures(), {"prompt": PROMPTS, "use": "label", "category": "count"})
    return ImageFolder(folder)


# Files of labels


def read_labels(path, images):
    table = labels.read(path).assign(time=0.0)
    found = labels.joined(table, images)[0]
    if len(found):
        raters.majority(pd.DataFrame(found))


def studio(name, prompt, choice="Good"):
    chosen = {"type": "choices", "from_name": "c", "value": {"choices": [choice]}}
    one = {"completed_by": {"email": "ann@x"}, "lead_time": 3.5, "result": [chosen]}
    return {"id": 1, "data": {"image": f"/data/upload/{name}", "prompt": prompt}, "annotations": [one]}


def _deep(found, way, value):
    """The object `found` with `value` at the end of a way of keys."""
    found = json.loads(json.dumps(found))
    inside = found
    for key in way[:-1]:
        inside = inside[key]
    inside[way[-1]] = value
    return json.dumps(found)


ODD = {
    "null": None,
    "a list": [1, 2],
    "a nested list": kinds.nested(50),
    "an object": {"a": 1},
    "an empty list": [],
    "words": "many",
    "empty text": "",
    "a number": 7,
    "negative": -1,
    "half": 0.5,
    "NaN": float("nan"),
    "infinite": float("inf"),
    "300 digits": 10**300,
    "true": True,
    "very long": kinds.LONG,
    "control characters": "\x00\x07",
    "half a surrogate": "\ud800",
}


def ways(found, before=()):
    """The ways to every value inside an object."""
    for key, value in found.items() if isinstance(found, dict) else enumerate(found):
        yield (*before, key)
        if isinstance(value, dict | list):
            yield from ways(value, (*before, key))


def label_files(box):
    folder = box.folder / "labels"
    images = image_folder(folder / "images")
    names = images.rows.file_name.tolist()
    rows = [("ann", n, p, "good", 1.5) for n, p in zip(names, PROMPTS, strict=True)]
    ours = folder / "ours.csv"
    pd.DataFrame(rows, columns=labels.COLUMNS[:5]).to_csv(ours, index=False)
    yield from tables("labels", "labels.csv", ours, partial(read_labels, ours, images))
    tia2 = {
        n: {"image": n, "caption": p, "human_labels": [0, 1]} for n, p in zip(names, PROMPTS, strict=True)
    }
    tasks = [studio(n, p) for n, p in zip(names, PROMPTS, strict=True)]
    for name, found in {"studio": tasks, "tia2": tia2}.items():
        path = folder / f"{name}.json"
        path.write_text(json.dumps(found))
        act = partial(read_labels, path, images)
        yield from objects("labels", path.name, path, act, keys=False)
        firsts = [way for way in ways(found) if way[0] in (0, names[0])]
        for way in firsts:
            odd = {
                k: lambda path, w=way, v=v, f=found: path.write_text(_deep(f, w, v)) for k, v in ODD.items()
            }
            told = ".".join(map(str, way))
            yield Door("labels", f"{path.name} [{told}]", (path.name,), of_file(path, act, odd))


# The label store


def answered(widget, answer, *given):
    """Click on a widget; what it says in its own place where nothing could be kept is raised."""
    if answer(*given) is False:
        raise UserError(html.unescape(widget.progress.value))


def stores(box):
    folder = box.folder / "stores"
    images = image_folder(folder / "images")
    path = folder / "people.sqlite"
    row = {"rater": "me", "image": 0, "prompt": PROMPTS[0], "label": "good", "position": 0}
    Store(path).add([row, row | {"image": 1, "prompt": PROMPTS[1], "rater": "ann"}])

    def opens():
        store = Store(path)
        table = store.table()
        labels.joined(table, images)[0]
        for given in raters.majority(table), raters.counts(table), raters.repeats(table):
            len(given)
        asked = widgets.Labeler(images, images.rows.prompt, store, rater="me")
        if asked.rows:
            answered(asked, asked.label, 0, "bad")
            answered(asked, asked.undo)

    shapes = {kind: kinds.stored(kind) for kind in kinds.STORES}
    cells = of_file(path, opens, kinds.FILES | shapes, mends=True)
    yield Door("stores", "people.sqlite", (path.name,), cells)

    votes = folder / "people_votes.sqlite"
    Votes(votes).add("me", PROMPTS[0], "alignment", 1, "x")

    def compares():
        found = Votes(votes)
        sets = np.stack([pictures(2)] * 3)
        asked = widgets.Comparer(sets, sets, PROMPTS, found, rater="me")
        answered(asked, asked.vote, "alignment", 1)
        found.table()

    cells = of_file(votes, compares, kinds.FILES, mends=True)
    yield Door("stores", "people_votes.sqlite", (votes.name,), cells)

    clicked = Store(folder / "clicked.sqlite")
    save_images(folder / "many", pictures(40, 8), {"prompt": [f"{k} cats." for k in range(40)]})
    many = ImageFolder(folder / "many")  # a click each
    asked = widgets.Labeler(many, many.rows.prompt, clicked, rater="me")

    def click():
        answered(asked, asked.label, 0, "good")
        assert len(clicked.table())

    cells = of_file(clicked.path, click, kinds.FILES, mends=True)
    yield Door("stores", "at a click", (clicked.path.name,), cells)


# Pictures


def _picture(mode, size=(64, 64), form="PNG", **options):
    def damage(path):
        Image.new(mode, size).save(path, format=form, **options)

    return damage


def _array(array):
    return lambda path: Image.fromarray(array).save(path, format="PNG")


def _bomb(path):
    """A small file that says it is 60,000 pixels wide."""
    good = io.BytesIO()
    Image.new("RGB", (8, 8)).save(good, format="PNG")
    told = bytearray(good.getvalue())
    told[16:24] = (60_000).to_bytes(4, "big") * 2
    path.write_bytes(bytes(told))


PICTURES = {
    "16 bits": _array(np.full((64, 64), 40_000, np.uint16)),
    "with alpha": _picture("RGBA"),
    "palette": _picture("P"),
    "one bit": _picture("1"),
    "grey": _picture("L"),
    "grey with alpha": _picture("LA"),
    "32 bits": _picture("I", form="TIFF"),
    "CMYK JPEG": _picture("CMYK", form="JPEG"),
    "JPEG": _picture("RGB", form="JPEG"),
    "TIFF of floats": _picture("F", form="TIFF"),
    "animated": _picture("P", form="GIF"),
    "WebP": _picture("RGB", form="WEBP"),
    "one pixel": _picture("RGB", (1, 1)),
    "very wide": _picture("RGB", (4000, 1)),
    "another size": _picture("RGB", (48, 64)),
    "a bomb": _bomb,
}


def image_files(box):
    folder = box.folder / "pictures"
    images = image_folder(folder)
    path = folder / "000001.png"

    def opens():
        found = ImageFolder(folder)[:]
        assert found.dtype == np.uint8 and found.shape[3] == 3 and len(found) == len(images)

    yield Door(
        "pictures",
        "of an image folder",
        (path.name, folder.name),
        of_file(path, opens, kinds.FILES | PICTURES),
    )

    def taken():
        source = data.CaptionedImages(str(folder), 9, size=64)
        found = list(source)
        assert all(image.shape == (64, 64, 3) and image.dtype == np.uint8 for image, _ in found)
        assert len(found) + sum(source.skipped.values()) == len(images), (
            "a picture is neither here nor skipped"
        )

    yield Door(
        "pictures",
        "of a captioned set",
        (path.name, folder.name),
        of_file(path, taken, kinds.FILES | PICTURES),
    )


# Captioned sets


def encoded(image, form="PNG"):
    out = io.BytesIO()
    Image.fromarray(image).save(out, form)
    return out.getvalue()


def take(path, least=0.0):
    """As 05, 06 and 07 take captioned pictures, of a least score."""
    source = data.CaptionedImages(str(path), 9, size=64, min_score=least)
    found = list(source)
    assert found and all(image.shape == (64, 64, 3) for image, _ in found)
    assert all(isinstance(caption, str) and caption.strip() for _, caption in found)


def write_tar(path, members):
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            told = tarfile.TarInfo(name)
            told.size = len(content)
            tar.addfile(told, io.BytesIO(content))


def members(change=lambda members: members):
    found = []
    for k, image in enumerate(pictures()):
        found.append((f"{k}.png", encoded(image)))
        found.append((f"{k}.txt", PROMPTS[k].encode()))
        found.append((f"{k}.json", json.dumps({"aesthetic": 5.5}).encode()))
    return change(found)


def _members(change):
    return lambda path: write_tar(path, members(change))


def _of(ending, content):
    """Every member of that ending holds something else."""
    return _members(lambda found: [(n, content if n.endswith(ending) else c) for n, c in found])


TARS = {
    "no member": _members(lambda found: []),
    "no text": _members(lambda found: [m for m in found if not m[0].endswith("txt")]),
    "no picture": _members(lambda found: [m for m in found if not m[0].endswith("png")]),
    "no JSON": _members(lambda found: [m for m in found if not m[0].endswith("json")]),
    "one text gone": _members(lambda found: [m for m in found if m[0] != "1.txt"]),
    "members twice": _members(lambda found: found + found),
    "names without an ending": _members(lambda found: [(n.replace(".", ""), c) for n, c in found]),
    "names in folders": _members(lambda found: [(f"a.b/{n}", c) for n, c in found]),
    "names that climb": _members(lambda found: [(f"../../{n}", c) for n, c in found]),
    "empty pictures": _of("png", b""),
    "pictures that are none": _of("png", b"no picture"),
    "empty texts": _of("txt", b""),
    "texts of bytes": _of("txt", b"\xff\xfe\x00\x01"),
    "JSON that is none": _of("json", b"{no"),
    "JSON of a list": _of("json", b"[1, 2]"),
    "JSON of a number": _of("json", b"7"),
    "JSON of NaN": _of("json", b'{"aesthetic": NaN, "caption": null}'),
    "JSON nested deeply": _of("json", b"[" * 5000 + b"]" * 5000),
    "other endings": _members(lambda found: [(n.replace("png", "PNG"), c) for n, c in found]),
    "mixed endings": _members(lambda found: [(n.replace("1.png", "1.jpg"), c) for n, c in found]),
    "in JPEG": _members(
        lambda found: [(n, encoded(pictures()[0], "JPEG") if n.endswith("png") else c) for n, c in found]
    ),
}


def write_parquet(path, **columns):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table(columns), path)


def _parquet(**changed):
    def damage(path):
        import pyarrow as pa

        images = pa.array([{"bytes": encoded(image), "path": "a.png"} for image in pictures()])
        columns = {"image": images, "caption": PROMPTS, "aesthetic": [5.0, 6.0, 7.0]} | changed
        write_parquet(path, **{k: v for k, v in columns.items() if v is not None})

    return damage


PARQUETS = {
    "captions are lists": _parquet(caption=[["two cats", "cats"], ["a cup"], ["stars"]]),
    "captions are empty lists": _parquet(caption=[[], [], ["stars"]]),
    "captions are numbers": _parquet(caption=[1, 2, 3]),
    "captions are bytes": _parquet(caption=[b"\xff", b"a", b"b"]),
    "captions are null": _parquet(caption=[None, None, None]),
    "captions are structs": _parquet(caption=[{"raw": "a"}, {"raw": "b"}, {"raw": "c"}]),
    "no captions": _parquet(caption=None),
    "no images": _parquet(image=None),
    "images are words": _parquet(image=["a.png", "b.png", "c.png"]),
    "images are numbers": _parquet(image=[1, 2, 3]),
    "images are bytes": _parquet(image=[encoded(image) for image in pictures()]),
    "images are null": _parquet(image=[None, None, None]),
    "images are broken": _parquet(image=[b"no", b"no", b"no"]),
    "scores are words": _parquet(aesthetic=["good", "bad", "good"]),
    "scores are null": _parquet(aesthetic=[None, 1.0, None]),
    "scores are NaN": _parquet(aesthetic=[float("nan"), float("inf"), 1e308]),
    "no row": lambda path: write_parquet(path, image=[], caption=[]),
    "a column more": _parquet(extra=[1, 2, 3]),
    "two caption columns": _parquet(text=["a", "b", "c"]),
}


def captioned_sets(box):
    folder = box.folder / "sets"
    image_folder(folder / "images")
    yield from tables(
        "captioned sets",
        "metadata.csv",
        folder / "images" / "metadata.csv",
        partial(take, folder / "images"),
        ("images",),
    )
    tar = folder / "pairs.tar"
    write_tar(tar, members())
    for name, least in {"tar": 0.0, "tar with scores": 5.0}.items():
        cells = of_file(tar, partial(take, tar, least), kinds.FILES | TARS)
        yield Door("captioned sets", name, (tar.name,), cells)
    parquet = folder / "pairs.parquet"
    _parquet()(parquet)
    for name, least in {"parquet": 0.0, "parquet with scores": 5.0}.items():
        cells = of_file(parquet, partial(take, parquet, least), kinds.FILES | PARQUETS)
        yield Door("captioned sets", name, (parquet.name,), cells)


LINES = {
    "an empty line": lambda lines: [*lines, ""],
    "a list": lambda lines: ["[1, 2]", *lines[1:]],
    "a number": lambda lines: ["7", *lines[1:]],
    "null": lambda lines: ["null", *lines[1:]],
    "no name": lambda lines: ['{"prompt": "x"}', *lines[1:]],
    "no prompt": lambda lines: [json.dumps({"file_name": json.loads(line)["file_name"]}) for line in lines],
    "names are numbers": lambda lines: ['{"file_name": 7, "prompt": "x"}', *lines[1:]],
    "names climb": lambda lines: ['{"file_name": "../../x.png", "prompt": "x"}', *lines[1:]],
    "prompts are lists": lambda lines: ['{"file_name": "000000.png", "prompt": ["a", "b"]}', *lines[1:]],
    "prompts are null": lambda lines: ['{"file_name": "000000.png", "prompt": null}', *lines[1:]],
    "prompts are numbers": lambda lines: ['{"file_name": "000000.png", "prompt": 7}', *lines[1:]],
    "keys twice": lambda lines: ['{"prompt": "a", "prompt": "b", "file_name": "000000.png"}', *lines[1:]],
    "nested deeply": lambda lines: ["[" * 5000 + "]" * 5000, *lines[1:]],
    "one JSON list": lambda lines: ["[" + ",".join(lines) + "]"],
    "single quotes": lambda lines: [lines[0].replace('"', "'"), *lines[1:]],
    "lines twice": lambda lines: lines + lines,
}


def collected(box, folder):
    """As 02 takes a person's own pictures."""
    settings = config.settings("generate", scale="smoke", pictures=str(folder))
    table = files.read_table(box.result("prompts", "prompts.csv"))
    rows, _ = generate.collect(box.pipe, table, box.folder / "collected", settings)
    found = ImageFolder(box.folder / "collected", ("category", "split", "use"))
    side = box.pipe.unet.config.sample_size * box.pipe.vae_scale_factor
    assert len(found) == len(rows) and found[:].shape[1:] == (side, side, 3)


def own_pictures(box):
    """The doors of 02's own pictures: tables of either kind, and words in files beside them."""
    own = ["Two cats.", "A red cup.", "Three stars.", "A dog by the sea.", "One green bird.", "Six hearts."]
    rows = [{"file_name": f"{k:06d}.png", "prompt": prompt} for k, prompt in enumerate(own)]
    for form in ("csv", "jsonl"):
        folder = box.folder / f"own-{form}"
        save_images(folder, pictures(len(own)), {"prompt": own})
        path, act = folder / f"metadata.{form}", partial(collected, box, folder)
        if form == "csv":
            yield from tables("own pictures", path.name, path, act, (folder.name,))
            continue
        (folder / "metadata.csv").unlink()
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        damages = kinds.FILES | {kind: _lines(change) for kind, change in LINES.items()}
        yield Door("own pictures", path.name, (path.name, folder.name), of_file(path, act, damages))
    path = folder / "000001.png"
    yield Door(
        "own pictures", "a picture", (path.name, folder.name), of_file(path, act, kinds.FILES | PICTURES)
    )
    folder = box.folder / "own-words"
    save_images(folder, pictures(len(own)), {"prompt": own})
    (folder / "metadata.csv").unlink()
    for row in rows:
        (folder / row["file_name"]).with_suffix(".txt").write_text(row["prompt"])
    path, act = folder / "000001.txt", partial(collected, box, folder)
    yield Door("own pictures", "words beside", (path.name, folder.name), of_file(path, act, kinds.FILES))


def _lines(change):
    return lambda path: path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")
