"""Compiled counting; the notebook `monitor/tally.ipynb` tells how it works. Needs numba; imported only inside functions."""

import numpy as np
from mlops_nb.core._compiled import njit

_u = np.uint64      # indices are unsigned: numba then leaves out the test for negative ones

@njit(nogil=True, error_model="numpy", inline="always")
def _bin(v, cuts, guide, low, step, top):
    "Number of cuts below v, from those below its step of the grid on; inf stands behind the last cut."
    g = (v - low)*step
    if not g > 0.: g = 0.
    if g > top: g = top
    a = _u(guide[_u(np.int64(g))])
    a += _u(cuts[a] < v)        # no branch: whether the one cut of a step is below v cannot be guessed
    while cuts[a] < v: a += _u(1)
    return a

@njit(nogil=True, error_model="numpy")
def place(x, cuts, guide, low, step, out):
    "The bin of each value of x (n,)."
    top = np.float64(len(guide) - 1)
    for i in range(len(x)): out[i] = _bin(x[i], cuts, guide, low, step, top)

@njit(nogil=True, error_model="numpy")
def count(x, code, cuts, guide, low, step, cells):
    "Add each value of x (n,) to its cell of `cells` (windows, cells), in the order of the notebook `bins`; `code` (n,) says the window, empty: there is one."
    last, top, w = _u(cells.shape[1] - 1), np.float64(len(guide) - 1), _u(0)
    for i in range(len(x)):
        v = x[i]
        if len(code): w = _u(code[i])
        a = _bin(v, cuts, guide, low, step, top) + _u(1)
        if not abs(v) < np.inf: a = last if v != v else last - _u(1) if v > 0 else _u(0)
        cells[w, a] += 1

@njit(nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz", "arcp"})
def powers(x, centre, inverse, out):
    "Add to `out` (4,) the sums of z, z^2, z^3, z^4 of the finite values of x (n,), eight at a time."
    s1 = s2 = s3 = s4 = 0.
    for i in range(len(x)):
        z = x[i]
        z = max(min((z - centre)*inverse if abs(z) < np.inf else 0., 1e6), -1e6)
        q = z*z
        s1 += z; s2 += q; s3 += z*q; s4 += q*q
    out[0] += s1; out[1] += s2; out[2] += s3; out[3] += s4

@njit(nogil=True, error_model="numpy", fastmath={"nnan", "nsz", "reassoc"})
def ends(x, out):
    "Keep in `out` (2,) the least and the greatest finite value."
    low, high = np.inf, -np.inf
    for i in range(len(x)):
        v = x[i]
        fine = abs(v) < np.inf
        low, high = min(low, v if fine else np.inf), max(high, v if fine else -np.inf)
    out[0], out[1] = min(out[0], low), max(out[1], high)

@njit(nogil=True, error_model="numpy")
def moments(x, code, centre, inverse, out):
    "Both for `out` (windows, 6), where `code` (n,) says the window."
    for i in range(len(x)):
        v = x[i]
        if abs(v) < np.inf:
            w, z = _u(code[i]), max(min((v - centre)*inverse, 1e6), -1e6)
            q = z*z
            out[w, 0] += z; out[w, 1] += q; out[w, 2] += z*q; out[w, 3] += q*q
            if v < out[w, 4]: out[w, 4] = v
            if v > out[w, 5]: out[w, 5] = v

@njit(nogil=True, error_model="numpy")
def least(x, code, bits, hashes, seen):
    "Keep in `hashes` (windows, K) the K least hashes of the values of x (n,), ascending; `seen` (1024,) remembers the last ones, for columns with few values."
    w, last = _u(0), _u(hashes.shape[1] - 1)
    for i in range(len(x)):
        h = bits[i] if bits[i] != _u(1 << 63) else _u(0)     # -0. is 0.
        h = (h ^ (h >> _u(33)))*_u(0xff51afd7ed558ccd)
        h = (h ^ (h >> _u(33)))*_u(0xc4ceb9fe1a85ec53)
        k = np.uint32((h ^ (h >> _u(33))) >> _u(32))
        if len(code): w = _u(code[i])
        if k < hashes[w, last] and x[i] == x[i]:
            slot, key = (_u(k) ^ w*_u(0x9e3779b1)) & _u(1023), w << _u(32) | _u(k)
            if seen[slot] != key:
                seen[slot] = key
                j = np.searchsorted(hashes[w], k)
                if hashes[w, j] != k:
                    for t in range(hashes.shape[1] - 1, j, -1): hashes[w, t] = hashes[w, t - 1]
                    hashes[w, j] = k

@njit(nogil=True, error_model="numpy")
def tally(x, code, cuts, guide, low, step, centre, inverse, cells, out, hashes, seen):
    "All three, some rows at a time so that these stay near."
    for a in range(0, len(x), 4096):
        part, at = x[a:a + 4096], code[a:a + 4096]
        count(part, at, cuts, guide, low, step, cells)
        if len(code): moments(part, at, centre, inverse, out)
        else:
            powers(part, centre, inverse, out[0])
            ends(part, out[0, 4:])
        least(part, at, part.view(np.uint64), hashes, seen)

@njit(nogil=True, error_model="numpy")
def distinct(keys, table, ids, first, code):
    "Number of distinct keys (n,) int64, the row of each in `first`, the id of each row in `code`; -1 when there are more than `first` holds. `ids` is -1 where `table` is free."
    mask, n = _u(len(table) - 1), 0
    for i in range(len(keys)):
        v = keys[i]
        s = (_u(v)*_u(0x9e3779b97f4a7c15) >> _u(40)) & mask
        while ids[s] >= 0 and table[s] != v: s = (s + _u(1)) & mask
        if ids[s] < 0:
            if n == len(first): return -1
            table[s], ids[s], first[n] = v, n, i
            n += 1
        code[i] = ids[s]
    return n
