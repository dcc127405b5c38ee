"""Compiled Shapley values of tree ensembles; the notebook `features/shapley.ipynb` tells how they work. Needs numba; imported only inside functions."""

import numpy as np
from mlops_nb.core._compiled import njit
from mlops_nb.features._walk import _right

_u, _MEMO, _MEMO_PAIRS = np.uint64, 14, 10      # masks of up to this many players are remembered

@njit(nogil=True, inline="always")
def _ones(mask):
    "How many bits are set."
    mask = mask - ((mask >> _u(1)) & _u(0x5555555555555555))
    mask = (mask & _u(0x3333333333333333)) + ((mask >> _u(2)) & _u(0x3333333333333333))
    return ((((mask + (mask >> _u(4))) & _u(0x0F0F0F0F0F0F0F0F))*_u(0x0101010101010101)) >> _u(56))

@njit(nogil=True, inline="always")
def _step(codes, rows, masks, n, to_rows, to_masks, f, cut, table, bits, way, bit, old):
    "Rows and masks one level down: the player's bit stays (or appears) where the row goes this way. Returns the union of the masks."
    union = _u(0)
    for i in range(n):
        fits = _right(codes[f, rows[i]], cut, table, bits) == way
        mask = masks[i] & ~bit | (bit if fits and (not old or masks[i] & bit) else _u(0))
        to_rows[i], to_masks[i] = rows[i], mask
        union |= mask
    return union

@njit(nogil=True, inline="always")
def _keep(rows, masks, n, others, full):
    "Drop rows that no partner completes to the whole path; returns how many stay."
    k = 0
    for i in range(n):
        if masks[i] | others == full:
            rows[k], masks[k] = rows[i], masks[i]
            k += 1
    return k

@njit(nogil=True, inline="always")
def _share(mine, theirs, count, n_theirs, full, d, gain, loss, into):
    "Add the Shapley values of the players of one leaf worth 1, for a row of mask `mine`, against all background masks."
    for b in range(n_theirs):
        other = theirs[b]
        if mine | other != full: continue
        k, m = _ones(mine & ~other), _ones(other & ~mine)
        if k + m == _u(0): continue
        up, down = gain[k, m]*count[b], loss[k, m]*count[b]
        for j in range(d):
            bit = _u(1) << _u(j)
            if mine & bit:
                if not other & bit: into[j] += up
            elif other & bit: into[j] -= down

@njit(nogil=True, inline="always")
def _share_pairs(mine, theirs, count, n_theirs, full, d, gain, loss, into):
    "Add half the Shapley interaction index of every two players to both of their places in `into` (d*d,): as `_share`, with the two as one player."
    for b in range(n_theirs):
        other = theirs[b]
        if mine | other != full: continue
        k, m = _ones(mine & ~other), _ones(other & ~mine)
        if k + m < _u(2): continue
        up = gain[k - _u(1), m]*count[b]/2 if k > _u(1) else 0.
        down = loss[k, m - _u(1)]*count[b]/2 if m > _u(1) else 0.
        across = -gain[k, m - _u(1)]*count[b]/2 if k > _u(0) and m > _u(0) else 0.
        for i in range(d):
            own_i, their_i = mine >> _u(i) & _u(1), other >> _u(i) & _u(1)
            if own_i == their_i: continue
            for j in range(i):
                own_j, their_j = mine >> _u(j) & _u(1), other >> _u(j) & _u(1)
                if own_j == their_j: continue
                part = across if own_i != own_j else up if own_i == _u(1) else down
                into[i*d + j] += part
                into[j*d + i] += part

@njit(nogil=True)
def shapley(nodes, bits, leaves, roots, player, codes, back, gain, loss, depth, pairs, players, out, begin, end):
    """Add to `out` (rows, players) the Shapley values of rows `begin` to `end` against the mean over the background rows; with `pairs`, to `out` (rows, players*players) half the
    interaction of every two.
    nodes, bits, roots: of `trees.Ensemble`; leaves (leaves,): what each adds to the output; player (columns,): whose each column is; codes (columns, rows),
    back (columns, background rows): what is compared with the cuts; gain, loss (65, 65): weights of a player only the row, or only the background, satisfies,
    by how many players only the row and only the background satisfy; depth: of the deepest tree."""
    n, m, most = end - begin, back.shape[1], depth + 2
    rows, masks = np.empty((most, n), np.int32), np.empty((most, n), np.uint64)
    brows, bmasks = np.empty((most, m), np.int32), np.empty((most, m), np.uint64)
    alive, balive, seen = np.empty(most, np.int64), np.empty(most, np.int64), np.zeros(most, np.int64)
    who, todo, level, above = np.empty(64, np.int32), np.empty(2*most, np.int32), np.empty(2*most, np.int32), np.empty(2*most, np.int32)
    memo = _MEMO_PAIRS if pairs else _MEMO
    slot, place, found, count = np.full(1 << memo, -1, np.int32), np.full(1 << memo, -1, np.int32), np.empty(m, np.uint64), np.empty(m)
    used, table_of, into = np.empty(1 << memo, np.uint64), np.empty(max(64*64, (memo*memo if pairs else memo) << memo)), np.empty(64*64, np.int64)
    for i in range(n): rows[0, i], masks[0, i] = begin + i, 0
    for i in range(m): brows[0, i], bmasks[0, i] = i, 0
    alive[0], balive[0] = n, m
    for t in range(len(roots)):
        todo[0], level[0], above[0], size = roots[t], 0, -1, 1
        while size > 0:
            size -= 1
            node, e, up = todo[size], level[size], above[size]
            if up >= 0:
                f, cut, table, way, d = nodes[up, 0], nodes[up, 2], nodes[up, 3], _u(node - nodes[up, 1]), seen[e-1]
                j = 0
                while j < d and who[j] != player[f]: j += 1
                old, bit = j < d, _u(1) << _u(j)
                who[j] = player[f]
                d = max(d, j + 1)
                seen[e] = d
                full = ((_u(1) << _u(d)) - _u(1)) if d < 64 else ~_u(0)
                mine = _step(codes, rows[e-1], masks[e-1], alive[e-1], rows[e], masks[e], f, cut, table, bits, way, bit, old)
                theirs = _step(back, brows[e-1], bmasks[e-1], balive[e-1], brows[e], bmasks[e], f, cut, table, bits, way, bit, old)
                alive[e] = _keep(rows[e], masks[e], alive[e-1], theirs, full)
                balive[e] = _keep(brows[e], bmasks[e], balive[e-1], mine, full)
                if alive[e] == 0 or balive[e] == 0: continue
            if nodes[node, 0] >= 0:
                for way in range(2):
                    todo[size], level[size], above[size] = nodes[node, 1] + way, e + 1, node
                    size += 1
                continue
            if e == 0: continue
            d, worth, n_found, n_used = seen[e], leaves[nodes[node, 1]]/m, 0, 0
            width, kept = d*d if pairs else d, d <= memo
            for j in range(width): into[j] = who[j//d]*players + who[j % d] if pairs else who[j]
            for i in range(balive[e]):
                mask = bmasks[e, i]
                at = place[mask] if kept else -1
                if at < 0:
                    at = n_found
                    found[at], count[at] = mask, 0
                    if kept: place[mask] = at
                    n_found += 1
                count[at] += worth
            for i in range(alive[e]):
                mask, row = masks[e, i], rows[e, i]
                at = slot[mask] if kept else -1
                if at < 0:
                    at = n_used if kept else 0
                    table = table_of[at*width:(at + 1)*width]
                    table[:] = 0
                    if pairs: _share_pairs(mask, found, count, n_found, full, d, gain, loss, table)
                    else: _share(mask, found, count, n_found, full, d, gain, loss, table)
                    if kept:
                        slot[mask], used[n_used] = at, mask
                        n_used += 1
                for j in range(width): out[row, into[j]] += table_of[at*width + j]
            if kept:
                for i in range(n_found): place[found[i]] = -1
                for i in range(n_used): slot[used[i]] = -1
