"""Features of texts or images, kept in memory: the least recently used go first when there are too many."""

from collections import OrderedDict

from torch import Tensor


class FeatureCache:
    """A text or an image's key -> its features, on the CPU. hits, misses: of all `get`s so far."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes, self.bytes = max_bytes, 0
        self.hits, self.misses = 0, 0
        self._features: OrderedDict[str, Tensor] = OrderedDict()

    def __len__(self) -> int:
        return len(self._features)

    def get(self, text: str) -> Tensor | None:
        features = self._features.get(text)
        if features is None:
            self.misses += 1
            return None
        self.hits += 1
        self._features.move_to_end(text)
        return features

    def put(self, text: str, features: Tensor) -> None:
        """Keep a text's features, and let the least recently used go. What is larger than all is not kept."""
        if features.nbytes > self.max_bytes or text in self._features:
            return
        self._features[text] = features
        self.bytes += features.nbytes
        while self.bytes > self.max_bytes:
            _, evicted = self._features.popitem(last=False)
            self.bytes -= evicted.nbytes

    def clear(self) -> None:
        self._features.clear()
        self.bytes = 0
