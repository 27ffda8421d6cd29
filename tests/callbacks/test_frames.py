from hypothesis import given
from hypothesis import strategies as st

from callbacks._frames import FrameRanges, frames_per_index

OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 4), st.integers(1, 3)),  # points, frames each
        st.tuples(st.just("rewind"), st.integers(1, 5), st.just(0)),  # points back
        st.tuples(st.just("take"), st.integers(1, 15), st.just(0)),  # seq_num
    ),
    max_size=30,
)


@given(OPERATIONS)
def test_ranges_hand_out_the_frames_that_a_table_of_single_points_would(operations: list[tuple[str, int, int]]) -> None:
    ranges, table = FrameRanges(), dict[int, tuple[int, int]]()
    seq_num, frame = 1, 0
    for kind, number, each in operations:
        if kind == "add":
            ranges.add(seq_num, seq_num + number, frame, frame + number * each)
            for _ in range(number):
                table[seq_num] = frame, frame + each
                seq_num, frame = seq_num + 1, frame + each
        elif kind == "rewind":
            seq_num = max(1, seq_num - number)
            ranges.cut(seq_num)
            table = {known: frames for known, frames in table.items() if known < seq_num}
        else:
            assert ranges.take(number) == table.pop(number, None)
        assert ranges.first == min(table, default=None)
    for known in sorted(table):
        assert ranges.take(known) == table[known]


def test_the_leading_number_of_a_shape_counts_frames_only_if_the_chunks_have_as_many_dimensions() -> None:
    assert frames_per_index([10, 240, 320], (1, 240, 320)) == 10
    assert frames_per_index([10], (1024,)) == 10
    assert frames_per_index([240, 320], (1, 240, 320)) == 1
    assert frames_per_index([10, 240, 320], None) == 1
    assert frames_per_index([], (1024,)) == 1
