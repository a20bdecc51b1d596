"""docs/benchmarks.md as `make bench` writes it."""

from tests.bench.run_all import PAGE, PARTS, table, with_machine, with_table

A_PAGE = (
    "# Measured\n\nLinux 1.2, old, 3 processors.\n\n## One\n\nA sentence.\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\nMore.\n\n## Two\n\n| c |\n"
)


def test_only_the_table_of_a_part_is_replaced() -> None:
    page = with_table(A_PAGE, "One", "| new |")
    assert page == A_PAGE.replace("| a | b |\n|---|---|\n| 1 | 2 |", "| new |")


def test_the_last_table_is_replaced() -> None:
    assert with_table(A_PAGE, "Two", "| new |") == A_PAGE.replace("| c |", "| new |")


def test_a_part_without_a_table_gets_one() -> None:
    page = with_table("# Measured\n\n## One\n\nA sentence.\n\n## Two\n", "One", "| new |")
    assert page == "# Measured\n\n## One\n\nA sentence.\n\n| new |\n\n## Two\n"


def test_a_part_that_is_not_there_is_put_last() -> None:
    assert with_table("# Measured\n", "One", "| new |") == "# Measured\n\n## One\n\n| new |\n"


def test_figures_of_three_moments_are_one_line() -> None:
    lines = table({"parts_early": 11, "parts_middle": 7, "parts_end": 8, "state_ratio": 1.0234}).splitlines()
    assert lines[0] == "| figure | at a tenth | half | end | meaning |"
    assert lines[2:] == [
        "| parts | 11 | 7 | 8 | active parts of table images |",
        "| state_ratio |  |  | 1.02 | the same of the saved state |",
    ]


def test_figures_of_one_moment_have_one_column() -> None:
    lines = table({"lost": 0, "events_per_second": 98_765.4}).splitlines()
    assert lines[0] == "| figure | value | meaning |"
    assert lines[2:] == ["| lost | 0 | records that found no room |", "| events_per_second | 98,765 | on one core |"]


def test_the_page_has_all_parts_and_the_machine() -> None:
    page = PAGE.read_text()
    assert all(f"\n## {title}\n" in page for title, _ in PARTS.values())
    assert "processors." in with_machine(page)
