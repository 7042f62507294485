"""Near hashes by FAISS: cells that near hashes share, and the nearest neighbours within a cell.

Cells come from k-means on a sample, so that where many images are alike (drawings on white) there are many
cells. A hash goes into its nearest cells, so that neighbours at a border meet. A cell holds some thousands,
and more than that only if their hashes are equal or nearly so: then it is searched piece by piece. So the
work grows with the number of images, whatever they show.
"""

import numpy as np
import numpy.typing as npt

from components.filtering.signature import HASH_BYTES, mirror_mask

CELL = 1024  # hashes that a cell has on average, but for those from beyond its border
CELLS_EACH = 2  # of a hash
SAMPLE = 40  # hashes of the sample for each cell
MOST_CELLS = 4096  # of one k-means; a cell of many more hashes is parted again where it is searched
MOST_TOGETHER = 8192  # hashes that are searched together
NEIGHBOURS = 8  # that a hash is compared with
_PADDED = 16  # bytes of a hash within FAISS, for which it has a faster loop than for 12

Bytes = npt.NDArray[np.uint8]


def find_centres(sample: Bytes, cells: int) -> npt.NDArray[np.float32]:
    """Centres of that many cells, (cells, bits), from a sample (N, HASH_BYTES), which decides them."""
    import faiss

    faiss.omp_set_num_threads(1)  # the sums' last bits depend on it
    kmeans = faiss.Kmeans(8 * HASH_BYTES, cells, niter=8, seed=1, max_points_per_centroid=SAMPLE)
    kmeans.cp.min_points_per_centroid = 1
    kmeans.train(_signs(sample))
    assert kmeans.centroids is not None
    return np.asarray(kmeans.centroids, np.float32)


def cells_of(hashes: Bytes, centres: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """The nearest cells of each image, of both of its hashes (N, 2, HASH_BYTES); (N, 2 * CELLS_EACH)."""
    import faiss

    index = faiss.IndexFlatL2(centres.shape[1])
    index.add(centres)
    nearest = index.search(_signs(hashes.reshape(-1, HASH_BYTES)), min(CELLS_EACH, len(centres)))[1]
    cells: npt.NDArray[np.int64] = nearest.reshape(len(hashes), -1).astype(np.int64)
    return cells


def propose(hashes: Bytes, max_bits: int, *, mirrored: bool = False) -> npt.NDArray[np.int64]:
    """Pairs of images (N, 2, HASH_BYTES) to compare: (pairs, 3), sorted; the lower index, the higher one, and
    1 where one of them is mirrored for it.

    Those of which one is among the nearest of the other by one of their hashes, within max_bits.
    """
    count, names = len(hashes), [np.empty(0, np.int64)]
    for which in range(hashes.shape[1]):
        flat = np.ascontiguousarray(hashes[:, which])
        for rows in _pieces(flat):
            for flip in (False, True) if mirrored else (False,):
                queries = flat[rows] ^ mirror_mask() if flip else flat[rows]
                first, second = _neighbours(queries, flat[rows], max_bits)
                first, second = rows[first], rows[second]
                low, high = np.minimum(first, second), np.maximum(first, second)
                names.append(np.unique(((low * count + high) * 2 + flip)[first != second]))
    ends, flips = np.divmod(np.unique(np.concatenate(names)), 2)
    return np.stack([*np.divmod(ends, count), flips], 1)


def _neighbours(
    queries: Bytes, hashes: Bytes, max_bits: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Pairs (query, hash) within max_bits: of each query the NEIGHBOURS nearest hashes, and its own."""
    import faiss

    faiss.omp_set_num_threads(1)  # workers share the cores
    index = faiss.IndexBinaryFlat(8 * _PADDED)
    index.add(_padded(hashes))
    wanted = min(NEIGHBOURS + 1, len(hashes))
    distances, nearest = index.search(_padded(queries), wanted)
    query, rank = np.nonzero(distances <= max_bits)
    return query, nearest[query, rank].astype(np.intp)


def _padded(hashes: Bytes) -> Bytes:
    return np.pad(hashes, ((0, 0), (0, _PADDED - HASH_BYTES)))


def _pieces(hashes: Bytes) -> list[npt.NDArray[np.intp]]:
    """The rows in overlapping groups to search: all of them, or by cells where there are many.

    Of a cell that k-means cannot part, overlapping runs in the hashes' order.
    """
    if len(hashes) <= MOST_TOGETHER:
        return [np.arange(len(hashes))]
    sample = hashes[:: max(1, len(hashes) // (SAMPLE * MOST_CELLS))]
    centres = find_centres(sample, min(len(hashes) // CELL, MOST_CELLS, len(sample)))
    cells = cells_of(hashes[:, None], centres)
    pieces = []
    for cell in np.unique(cells):
        rows = np.nonzero((cells == cell).any(1))[0]
        if len(rows) <= MOST_TOGETHER:
            pieces.append(rows)
            continue
        ordered = rows[np.lexsort(hashes[rows].T[::-1])]
        step = MOST_TOGETHER // 2
        pieces += [ordered[start : start + MOST_TOGETHER] for start in range(0, len(rows) - step, step)]
    return pieces


def _signs(hashes: Bytes) -> npt.NDArray[np.float32]:
    return np.unpackbits(hashes, axis=-1).astype(np.float32) * 2 - 1
