"""Compiled walks through tree ensembles; the notebook `features/trees.ipynb` tells how they work. Needs numba; imported only inside functions."""

import numpy as np
from mlops_nb.core._compiled import njit

@njit(nogil=True)
def relabel(left, right):
    "New places of the nodes of one tree, (n,) int32, breadth first: the children of a node stand side by side."
    place, queue, head, tail = np.zeros(len(left), np.int32), np.zeros(len(left), np.int32), 0, 1
    while head < tail:
        node = queue[head]
        head += 1
        if left[node] >= 0:
            queue[tail], queue[tail+1] = left[node], right[node]
            place[left[node]], place[right[node]] = tail, tail+1
            tail += 2
    return place

_u = np.uint64      # indices are unsigned: numba then leaves out the test for negative ones

@njit(nogil=True, inline="always")
def _right(code, cut, table, bits):
    "1 when a value goes right: above the cut, or not among the categories of row `table`."
    if table < 0: return _u(code > cut)
    c = _u(code)
    return _u(1) - _u((bits[_u(table), c >> _u(5)] >> np.uint32(c & _u(31))) & np.uint32(1))

@njit(nogil=True, inline="always")
def _rightward(cut, table, bits, partners, i, f, members):
    "Bits of the repeats among `members` whose partner goes right."
    mask = _u(0)
    if table < 0:
        for r in range(partners.shape[2]): mask |= _u(partners[i, f, r] > cut) << _u(r)
    else:
        for r in range(partners.shape[2]): mask |= _right(partners[i, f, r], cut, table, bits) << _u(r)
    return mask & members

@njit(nogil=True)
def walk(nodes, bits, values, roots, offsets, start, codes, partner, group, n_groups, out, begin, end):
    """Fill `out` (groups, repeats, outputs, rows) with what the ensemble says when one group of columns comes from the partner row.
    nodes (N, 4) int32: column (-1: leaf), first child (leaf: row of `values`), cut, row of `bits` (-1: a number, left when code <= cut); values (leaves, W): added to
    outputs `offsets[t]` and on; start (outputs,): sum before the first tree; codes (n, columns); partner (repeats, rows): row that lends; group (columns,);
    begin, end: rows to do, `out` holds these alone."""
    n_repeats = len(partner)
    n_out, width, columns, slots = len(start), values.shape[1], codes.shape[1], n_groups*n_repeats
    block = max(4, min(512, 524288//(8*slots*n_out + columns*(n_repeats + 1)*codes.itemsize + 1)))
    total = np.empty((block, n_out, slots))
    lent = np.empty((block, columns, n_repeats), codes.dtype)
    done, touched = np.zeros(n_groups + 1, np.uint64), np.empty(slots + 1, np.uint32)
    late, leaf, summed = np.empty(slots + 1, np.uint32), np.empty(slots + 1, np.uint32), np.empty((slots, width))
    at, who, of = np.empty(slots + 1, np.uint32), np.empty(slots + 1, np.uint64), np.empty(slots + 1, np.int32)   # walkers: node, repeats, group
    everyone, zero, one, repeats = _u(0), _u(0), _u(1), _u(n_repeats)
    for r in range(n_repeats): everyone |= one << _u(r)
    for first in range(begin, end, block):
        m = min(block, end - first)
        for i in range(m):
            for r in range(n_repeats):
                row = partner[r, first + i]
                for f in range(columns): lent[i, f, r] = codes[row, f]
            for k in range(n_out): total[i, k, :] = start[k]
        for t in range(len(roots)):
            off = offsets[t]
            for i in range(m):
                n_touched, n_late, live, node, row = zero, zero, zero, _u(roots[t]), _u(first + i)
                while nodes[node, 0] >= 0:
                    f, child, cut, table = _u(nodes[node, 0]), _u(nodes[node, 1]), nodes[node, 2], nodes[node, 3]
                    way = _right(codes[row, f], cut, table, bits)
                    if group[f] >= 0:
                        g = _u(group[f])
                        right = _rightward(cut, table, bits, lent, i, f, everyone)
                        mask = (right if way == zero else ~right & everyone) & ~done[g]
                        if mask != zero:
                            touched[n_touched] = g
                            n_touched += one
                            done[g] |= mask
                            at[live], who[live], of[live] = child + one - way, mask, g
                            live += one
                    node = child + way
                while live > zero:
                    w = zero
                    while w < live:
                        here = _u(at[w])
                        table, cut, child = nodes[here, 3], nodes[here, 2], _u(nodes[here, 1])
                        if nodes[here, 0] < 0:
                            mask, slot = who[w], _u(of[w])*repeats
                            for r in range(n_repeats):       # no branch: written always, kept when it counts
                                late[n_late], leaf[n_late] = slot + _u(r), child
                                n_late += (mask >> _u(r)) & one
                            live -= one
                            at[w], who[w], of[w] = at[live], who[live], of[live]
                            continue
                        f = _u(nodes[here, 0])
                        if group[f] != of[w]: at[w] = child + _right(codes[row, f], cut, table, bits)
                        else:
                            right = _rightward(cut, table, bits, lent, i, f, who[w])
                            if right == who[w]: at[w] = child + one
                            else:
                                at[w] = child
                                if right != zero:
                                    who[w] &= ~right
                                    at[live], who[live], of[live] = child + one, right, of[w]
                                    live += one
                        w += one
                node = _u(nodes[node, 1])
                for k in range(width):
                    sums = total[i, off + k]
                    for c in range(n_late): summed[c, k] = sums[_u(late[c])] + values[_u(leaf[c]), k]
                    value = values[node, k]
                    for s in range(slots): sums[s] += value
                    for c in range(n_late): sums[_u(late[c])] = summed[c, k]
                for c in range(n_touched): done[_u(touched[c])] = zero
        for i in range(m):
            for k in range(n_out):
                for g in range(n_groups):
                    for r in range(n_repeats): out[g, r, k, first - begin + i] = total[i, k, g*n_repeats + r]

@njit(nogil=True)
def spliced(data, indices, indptr, rows, borrowed):
    "data, indices and indptr of the first len(rows) sparse rows, their `borrowed` (columns,) entries from `rows`; columns stay in order."
    n, room = len(rows), 0
    for i in range(n): room += indptr[i+1] - indptr[i] + indptr[rows[i]+1] - indptr[rows[i]]
    values, columns, ends, at = np.empty(room, data.dtype), np.empty(room, indices.dtype), np.zeros(n + 1, indptr.dtype), 0
    for i in range(n):
        a, b, a_end, b_end = indptr[i], indptr[rows[i]], indptr[i+1], indptr[rows[i]+1]
        while True:
            while a < a_end and borrowed[indices[a]]: a += 1
            while b < b_end and not borrowed[indices[b]]: b += 1
            if a < a_end and (b >= b_end or indices[a] < indices[b]): k, a = a, a + 1
            elif b < b_end: k, b = b, b + 1
            else: break
            values[at], columns[at] = data[k], indices[k]
            at += 1
        ends[i+1] = at
    return values[:at].copy(), columns[:at].copy(), ends

@njit(nogil=True)
def ranked(levels, x, strict):
    "How many of the ascending `levels` lie below each `x` (`strict`: not above it); 0 for NaN. As numpy.searchsorted, without a branch."
    out, n = np.zeros(len(x), np.int32), len(levels)
    if n == 0: return out
    for i in range(len(x)):
        at, size, v = 0, n, x[i]
        while size > 1:
            half = size//2
            below = levels[at + half - 1] <= v if strict else levels[at + half - 1] < v
            at += half*below
            size -= half
        out[i] = at + (levels[at] <= v if strict else levels[at] < v)
    return out
