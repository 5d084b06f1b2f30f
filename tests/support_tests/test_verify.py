"""The verdict of the crash tests is itself tested: each kind of damage is seen, and nothing else is."""

from __future__ import annotations

from dataclasses import dataclass

from tests.kafka.crash.verify import Place, Seen, Verdict, out_of_order, seen, verify

OUT = Place("out", 0)
OTHER = Place("out", 1)


def standing(*numbers: int, at: Place = OUT) -> list[Seen]:
    return [Seen(at, offset, number) for offset, number in enumerate(numbers)]


def judge(numbers: int, *outputs: Seen, lanes: int = 1) -> Verdict:
    return verify(range(numbers), outputs, lane=lambda n: n % lanes)


def test_everything_once_and_in_order_is_exactly_once() -> None:
    verdict = judge(4, *standing(0, 1, 2, 3))

    assert verdict == Verdict(expected=4, lost=frozenset(), invented=frozenset(), duplicates=0, disorder={})
    assert verdict.exactly_once
    assert verdict.at_least_once


def test_a_missing_number_is_lost() -> None:
    verdict = judge(4, *standing(0, 1, 3))

    assert verdict.lost == {2}
    assert not verdict.at_least_once


def test_the_end_of_the_input_can_be_lost_too() -> None:
    assert judge(4, *standing(0, 1)).lost == {2, 3}


def test_copies_are_counted_over_all_outputs() -> None:
    verdict = judge(3, *standing(0, 1, 1, 1, 2), *standing(2, at=Place("dead-letters", 0)))

    assert verdict.duplicates == 3
    assert verdict.at_least_once
    assert not verdict.exactly_once


def test_the_places_of_some_copies_are_named() -> None:
    verdict = judge(3, *standing(0, 1, 2), *standing(1, at=OTHER))

    assert verdict.repeated == (Seen(OUT, 1, 1), Seen(OTHER, 0, 1))


def test_what_went_in_twice_may_come_out_twice_and_no_oftener() -> None:
    outputs = standing(0, 1, 1, 2, 2)

    assert verify(range(3), outputs, lambda _: 0, {1: 2, 2: 2}.__getitem__).exactly_once
    assert verify(range(3), outputs, lambda _: 0, lambda n: 2 if n == 1 else 1).duplicates == 1


def test_numbers_that_never_went_in_are_invented() -> None:
    verdict = judge(2, *standing(0, 1, 7))

    assert verdict.invented == {7}
    assert not verdict.at_least_once


def test_a_record_behind_a_later_one_is_out_of_order() -> None:
    verdict = judge(4, *standing(0, 2, 1, 3))

    assert verdict.disorder == {OUT: 1}
    assert verdict.at_least_once
    assert not verdict.exactly_once


def test_each_record_that_comes_late_counts() -> None:
    assert judge(4, *standing(3, 0, 1, 2)).disorder == {OUT: 3}


def test_source_partitions_may_mix_in_an_output() -> None:
    assert judge(6, *standing(1, 3, 0, 5, 2, 4), lanes=2).exactly_once


def test_order_is_judged_for_each_output_partition() -> None:
    outputs = [*standing(2, 3), *standing(1, 0, at=OTHER)]

    assert judge(4, *outputs).disorder == {OTHER: 1}


def test_a_stretch_that_is_repeated_after_a_crash_is_duplication_and_not_disorder() -> None:
    verdict = judge(6, *standing(0, 1, 2, 3, 1, 2, 3, 4, 5))

    assert verdict.duplicates == 3
    assert verdict.disorder == {}


def test_a_repetition_in_another_partition_may_stand_behind_later_records() -> None:
    assert out_of_order([*standing(3, 4), *standing(0, 3, 2, at=OTHER)], lane=lambda _: 0) == {OTHER: 1}


def test_the_offsets_tell_the_order_and_not_the_order_of_reading() -> None:
    assert judge(3, *reversed(standing(0, 1, 2))).exactly_once


def test_an_output_that_is_empty_has_lost_everything() -> None:
    assert judge(2).lost == {0, 1}


def test_records_are_reduced_to_number_and_place() -> None:
    @dataclass
    class Record:
        topic: str
        partition: int
        offset: int
        value: bytes

    assert seen([Record("out", 1, 5, b"42")], lambda record: int(record.value)) == [Seen(OTHER, 5, 42)]


def test_the_description_names_some_of_what_is_lost() -> None:
    text = judge(10, *standing(9, 8)).describe()

    assert "10 records in: lost 8 [0, 1, 2, 3, 4], duplicates 0" in text
    assert "out of order 1" in text
