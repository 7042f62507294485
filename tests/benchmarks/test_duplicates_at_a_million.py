"""The search for duplicates finds what is hidden in synthetic hashes, whatever they show."""

import pytest
from duplicates_at_a_million import KINDS, search_corpus, write_corpus


@pytest.mark.parametrize("kind", KINDS)
def test_every_copy_is_found_and_nothing_else(kind, tmp_path):
    write_corpus(1024, kind, tmp_path)
    costs = search_corpus(tmp_path)
    assert (costs.rows, costs.found, costs.wrong) == (1024, 1.0, 0)
