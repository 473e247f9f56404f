from homerd.core.table import Table


class Clock:
    def __init__(self):
        self.seconds = 1000.0

    def __call__(self):
        return self.seconds


def test_a_value_is_there_until_it_is_removed():
    table = Table(Clock())
    assert table.put("a", 1)
    assert table.get("a") == 1
    assert table.remove("a")
    assert table.get("a") is None
    assert not table.remove("a")


def test_an_expired_key_reads_as_missing_before_it_is_purged():
    clock = Clock()
    table = Table(clock, expire_seconds=5)
    table.put("a", 1)
    clock.seconds += 5
    assert table.get("a", "gone") == "gone"
    assert "a" not in table
    assert len(table) == 0
    assert table.keys() == []
    assert not table.remove("a")


def test_each_write_renews_the_life_of_a_key():
    clock = Clock()
    table = Table(clock, expire_seconds=5)
    table.put("a", 1)
    clock.seconds += 4
    table.put("a", 2)
    assert table.seconds_left("a") == 5


def test_without_renewal_a_key_lives_from_its_first_write():
    clock = Clock()
    table = Table(clock, expire_seconds=5, renew=False)
    table.put("a", 1)
    clock.seconds += 4
    table.put("a", 2)
    assert table.seconds_left("a") == 1
    clock.seconds += 2
    table.put("a", 3)
    assert table.seconds_left("a") == 5


def test_a_key_may_have_a_life_of_its_own():
    clock = Clock()
    table = Table(clock)
    table.put("short", 1, seconds=2)
    table.put("long", 1)
    clock.seconds += 3
    assert table.items() == [("long", 1)]
    assert table.expire("long", 1)
    assert not table.expire("short", 1)
    clock.seconds += 1
    assert len(table) == 0


def test_purge_tells_what_it_freed():
    clock = Clock()
    table = Table(clock, expire_seconds=5)
    told = []
    table.put("a", 1)
    clock.seconds += 3
    table.put("b", 2)
    clock.seconds += 3
    assert table.purge(lambda key, value: told.append((key, value))) == 1
    assert told == [("a", 1)]
    assert table.items() == [("b", 2)]


def test_who_is_told_of_an_expired_key_may_set_it_again():
    clock = Clock()
    table = Table(clock, expire_seconds=5)
    table.put("a", 1)
    clock.seconds += 6
    table.purge(lambda key, value: table.put(key, value + 1))
    assert table.get("a") == 2


def test_a_full_table_refuses_new_keys_and_counts_them():
    table = Table(Clock(), limit=2)
    assert [table.put(key, 1) for key in "abc"] == [True, True, False]
    assert table.put("a", 2)
    assert table.refused == 1
    assert table.items() == [("a", 2), ("b", 1)]


def test_expired_keys_make_room_in_a_full_table():
    clock = Clock()
    table = Table(clock, expire_seconds=5, limit=1)
    table.put("a", 1)
    clock.seconds += 5
    assert table.put("b", 2)
    assert table.refused == 0


def test_a_table_may_change_while_it_is_walked():
    table = Table(Clock())
    for key in "abc":
        table.put(key, 1)
    for key in table:
        table.remove(key)
    assert len(table) == 0
