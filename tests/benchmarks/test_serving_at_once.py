"""Requests that come at once are answered much faster than one after another."""

from serving_at_once import measure


def test_many_clients_at_once_get_more_images_a_second_than_one():
    rates = measure(clients=32, requests=8)
    assert rates.at_once > 1.6 * rates.alone
