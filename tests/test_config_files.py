"""Files that are no configuration: told by their line, and nothing in them runs or grows."""

from pathlib import Path

import pytest

from pipelines.config_reading import MAX_CONFIG_BYTES, ConfigError, load_config
from tests.configurations import LOCAL, Load, errors_of


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("source:\n\turi: x\n", ", line 2: no valid YAML: a tab; YAML is indented by spaces"),
        (
            "source: {uri: a/{date}/*}\n",
            ", line 1: no valid YAML: expected ',' or '}', but got '{' "
            "(between braces a value with {date} needs quotes)",
        ),
        ("source:\n  uri: x\n  uri: y\n", ", line 3: no valid YAML: the key 'uri' stands twice"),
        (LOCAL + "source: {uri: y}\n", ", line 3: no valid YAML: the key 'source' stands twice"),
        (
            "a: &a {uri: y}\nsource: {<<: *a}\n",
            ", line 2: no valid YAML: '<<' is not supported; write the keys out",
        ),
        (
            "source: &a {uri: x, storage_options: *a}\n",
            ", line 1: no valid YAML: found unconstructable recursive node",
        ),
        ("? [a]\n: b\n", ", line 1: no valid YAML: a key is a name"),
        (LOCAL + "---\na: b\n", ", line 3: no valid YAML: but found another document"),
        ("source: " + "[" * 3000 + "]" * 3000, ": no valid YAML: nested too deep"),
        ("source: {uri: 'a\0b'}", ": no valid YAML: special characters are not allowed"),
        (b"source: {uri: caf\xe9}", ": is no text in UTF-8"),
        (LOCAL.encode("utf-16"), ": is no text in UTF-8"),
        (b"#" * (MAX_CONFIG_BYTES + 1), ": a configuration has at most 1,000,000 bytes"),
        ("a: &a [x]\nb: [" + "*a, " * 21 + "]\n", ": more than 20 YAML aliases"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_file_that_is_no_yaml_is_told_by_its_line(load: Load, text: str | bytes, expected: str) -> None:
    assert errors_of(load, text) == [expected]


def test_a_yaml_tag_runs_nothing(load: Load, tmp_path: Path) -> None:
    mark = tmp_path / "mark"

    (error,) = errors_of(load, f"!!python/object/apply:os.system ['touch {mark}']\n")

    assert "could not determine a constructor for the tag" in error
    assert not mark.exists()


def test_aliases_of_aliases_are_refused_before_they_grow(load: Load) -> None:
    levels = "".join(f"{chr(98 + i)}: [{', '.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(9))
    bomb = "a: &a [x]\n" + "\n".join(f"{line[:2]} &{line[0]}{line[2:]}" for line in levels.splitlines())

    assert errors_of(load, bomb) == [": more than 20 YAML aliases"]


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read: No such file or directory"):
        load_config(str(tmp_path / "none.yaml"))
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_config(str(tmp_path))
