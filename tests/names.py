"""Which names a notebook's cells bind, and which they read of other cells: text alone, nothing is run."""

import ast
import builtins

GIVEN = {*dir(builtins), "display"}


class Names(ast.NodeVisitor):
    """`bound` by a cell, and `read` before the cell has bound it, in its own lines or inside a function."""

    def __init__(self, bound=()):
        self.bound, self.read = set(bound), set()

    def visit_Name(self, node):
        if not isinstance(node.ctx, ast.Load):
            self.bound.add(node.id)
        elif node.id not in self.bound:
            self.read.add(node.id)

    def visit_Import(self, node):
        self.bound |= {(a.asname or a.name).split(".")[0] for a in node.names}

    visit_ImportFrom = visit_Import

    def visit_Assign(self, node):
        for part in (node.value, *node.targets):
            self.visit(part)

    def visit_AugAssign(self, node):
        self.visit(node.value)
        if isinstance(node.target, ast.Name):
            self.visit(ast.Name(node.target.id, ast.Load()))
        self.visit(node.target)

    def visit_For(self, node):
        for part in (node.iter, node.target, *node.body, *node.orelse):
            self.visit(part)

    def visit_FunctionDef(self, node):
        for part in filter(None, (*node.args.defaults, *node.args.kw_defaults)):
            self.visit(part)
        self.bound.add(node.name)
        self.inside(node.body, {a.arg for a in ast.walk(node.args) if isinstance(a, ast.arg)})

    def visit_Lambda(self, node):
        self.inside([node.body], {a.arg for a in ast.walk(node.args) if isinstance(a, ast.arg)})

    def visit_ListComp(self, node):
        targets = {n.id for g in node.generators for n in ast.walk(g.target) if isinstance(n, ast.Name)}
        self.inside(
            [part for g in node.generators for part in (g.iter, *g.ifs)]
            + [getattr(node, n) for n in ("elt", "key", "value") if hasattr(node, n)],
            targets,
        )

    visit_SetComp = visit_DictComp = visit_GeneratorExp = visit_ListComp

    def inside(self, parts, own):
        """A scope of its own: what it reads and does not bind, this cell reads."""
        scope = Names(own)
        for part in parts:
            scope.visit(part)
        self.read |= scope.read - scope.bound - self.bound


def unclear(notebook):
    """Sentences on names that a cell reads and not exactly one other cell binds: run again, it would read
    what ran last."""
    cells = [c for c in notebook["cells"] if c["cell_type"] == "code"]
    names, parameters = [], set()
    for cell in cells:
        source, of = "".join(cell["source"]), Names()
        of.visit(ast.parse(source))
        parameters |= of.bound if "parameters" in cell["metadata"].get("tags", []) else set()
        of.read |= parameters if "globals()" in source else set()
        names.append(of)
    binds = {n: [k for k, of in enumerate(names) if n in of.bound] for of in names for n in of.read - GIVEN}
    return [
        f"code cell {k} reads {n!r}, which cells {binds[n]} bind"
        for k, of in enumerate(names)
        for n in sorted(of.read - GIVEN)
        if len(binds[n]) != 1
    ]
