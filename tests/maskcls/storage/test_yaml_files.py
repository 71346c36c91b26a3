import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from maskcls.storage import yaml_files


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("010", "010"),
        ("10", 10),
        ("-3", -3),
        ("1e-4", 1e-4),
        ("1.5", 1.5),
        (".5", 0.5),
        ("off", "off"),
        ("no", "no"),
        ("true", True),
        ("2024-01-05", "2024-01-05"),
        ("12:30", "12:30"),
        ("1_000", "1_000"),
        ("null", None),
        ("~", None),
        ("", None),
        ("{a: , b: 1}", {"a": None, "b": 1}),
        ("a: &x {b: 1}\nc: {<<: *x, b: 2}", {"a": {"b": 1}, "c": {"b": 2}}),
    ],
)
def test_plain_values_are_read_as_in_yaml_1_2(text, value):
    assert repr(yaml_files.parse(text)) == repr(value)


@pytest.mark.parametrize(
    "text",
    ["a: 1\nb: 2\na: 3", "x:\n  a: 1\n  'a': 3", "- {b: 1}\n- {a: 1,\n a: 1}"],
)
def test_a_key_given_twice_is_refused_with_both_lines(text, tmp_path):
    path = tmp_path / "some.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"(?s)some.yaml.*'a' is given twice, first in.*line 3"):
        yaml_files.read(path)


@settings(max_examples=30)
@given(st.recursive(st.text() | st.integers() | st.booleans() | st.none()
                    | st.floats(allow_nan=False), lambda inner: st.lists(inner, max_size=3)
                    | st.dictionaries(st.text(), inner, max_size=3), max_leaves=5))  # fmt: skip
@example("\x85")
@example({"\u2028": ["a\u2029b\n"]})
def test_what_is_written_is_read_back_by_us_and_by_plain_pyyaml(value):
    for flow in (True, False):
        text = yaml_files.dump(value, flow=flow)
        assert yaml_files.parse(text) == value
        assert yaml.safe_load(text) == value
