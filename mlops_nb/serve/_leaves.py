"""The compiled sum over trees; the notebook `serve/trees.ipynb` tells how it works. Needs numba; imported only inside functions."""

from mlops_nb.core._compiled import njit

@njit(nogil=True)
def add_leaves(nodes, sets, values, roots, offsets, X, out):
    "Add to `out` (n, outputs) what each tree says of the rows X (n, columns), tree after tree; some rows at a time, so that they and a tree stay near."
    n, width, block = len(X), values.shape[1], max(64, 32_768//X.shape[1])
    for first in range(0, n, block):
        last = min(first + block, n)
        for t in range(len(roots)):
            offset = offsets[t]
            for i in range(first, last):
                node = nodes[roots[t]]
                while node.column >= 0:
                    x, right = X[i, node.column], 0
                    if node.table >= 0: right = 1 - sets[node.table, int(x) if 0 <= x < 256 else 256]
                    elif x != x: right = node.gap
                    elif x > node.cut: right = 1
                    node = nodes[node.child + right]
                for k in range(width): out[i, offset + k] += values[node.child, k]
