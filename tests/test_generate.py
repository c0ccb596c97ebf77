"""Drawing into a folder: it resumes, and several processes share it, to the same pictures."""

from test_objective import PROMPTS

from rlhf_nb import generate


def test_drawing_resumes_and_shares_to_the_same_pictures(pipe, tmp_path):
    options = {"guidance": 2.0, "steps": 2, "seed": 3, "batch": 2}
    rows = {"prompt": (PROMPTS * 2)[:7]}
    generate.draw(pipe, rows["prompt"], rows, tmp_path / "whole", **options)
    for rank in (1, 0):
        generate.draw(pipe, rows["prompt"], rows, tmp_path / "shared", rank=rank, processes=2, **options)
    for name in ("000000.png", "000003.png"):
        (tmp_path / "shared" / name).unlink()
    generate.draw(pipe, rows["prompt"], rows, tmp_path / "shared", **options)
    files = sorted(p.name for p in (tmp_path / "whole").iterdir())
    assert len(files) == 8 and files == sorted(p.name for p in (tmp_path / "shared").iterdir())
    assert all((tmp_path / "whole" / f).read_bytes() == (tmp_path / "shared" / f).read_bytes() for f in files)
