"""The planted defects can still be planted: each names a text that stands there once."""

import defects
import nbformat
import pytest
from conftest import ROOT


@pytest.mark.parametrize("defect", defects.DEFECTS, ids=lambda defect: defect[0])
def test_a_planted_defect_names_a_text_that_stands_there_once(defect):
    _, chapter, file, old, new = defect
    path = ROOT / (file or f"notebooks/{chapter}.ipynb")
    if path.suffix == ".ipynb":
        sources = [cell.source for cell in nbformat.read(path, 4).cells]
    else:
        sources = [path.read_text()]
    assert sum(source.count(old) for source in sources) == 1 and new != old
