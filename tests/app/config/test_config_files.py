"""Configuration files: errors of the file itself, and arbitrary files and data."""

from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxrefine.app.config import Config
from jaxrefine.data import InputError
from tests.app.config.config_data import REQUIRED, leaves, with_values


@pytest.mark.parametrize("text", ["", "# nothing but a comment\n", "---\n", "null\n"])
def test_empty_file_lacks_every_required_key(tmp_path, text):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        Config.load(path)
    assert [message.split(" — ")[0] for message in error.value.errors] == [
        f"{path}: template_volume_path: missing",
        f"{path}: particle_stack.df_path: missing",
        f"{path}: particle_stack.extracted_box_size: missing",
        f"{path}: particle_stack.original_template_size: missing",
    ]
    assert "required: the path of the template volume" in error.value.errors[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", "top level: ['a', 'b'] — must be a mapping"),
        ("just words\n", "top level: 'just words' — must be a mapping"),
        ("a: 1\nb: [1, 2\nc: 3\n", "line 3, column 2: expected ',' or ']'"),
        ("a:\n\t- 1\n", "line 2, column 1: found character '\\t'"),
        ("a: b: c\n", "line 1, column 5: mapping values are not allowed here"),
        ("a: 1\n---\nb: 1\n", "line 2, column 1: but found another document"),
        ("a: !!python/object:os.system {}\n", "line 1, column 4: could not determine"),
        ("a: 2024-13-45\n", "line 1, column 4: '2024-13-45' is not a valid timestamp"),
        ("a: !!int many\n", "line 1, column 4: 'many' is not a valid int"),
        ("? [1]\n: 2\n", "line 1, column 3: found unhashable key"),
        ("a: *b\n", "line 1, column 4: found undefined alias 'b'"),
        ("a: 1\nb: \x07\n", "line 2, column 4: the character '\\x07' is not allowed"),
        ("a: " + "[" * 1200, "nested too deeply"),
    ],
)
def test_file_that_is_no_mapping(tmp_path, text, message):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        Config.load(path)
    assert error.value.errors[0].startswith(f"{path}: {message}")


def test_duplicated_keys_are_errors_with_their_lines(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(
        yaml.safe_dump(REQUIRED)
        + "defocus_refinement_config:\n  defocus_step: 1.0\n  defocus_step: 0.0\n"
        + "scoring: image_ctf\nscoring: template_ctf\nscoring: image_ctf\n"
    )
    lines = path.read_text().splitlines()
    first = lines.index("scoring: image_ctf") + 1
    with pytest.raises(InputError) as error:
        Config.load(path)
    keep = "duplicated key; keep one of them"
    assert error.value.errors == (
        f"{path}: scoring: given in lines {first} and {first + 1} and {first + 2} — {keep}",
        f"{path}: defocus_refinement_config.defocus_step: "
        f"given in lines {first - 2} and {first - 1} — {keep}",
        f"{path}: defocus_refinement_config.defocus_step: 0.0 — must be larger than 0 Å",
    )


def test_merged_and_aliased_mappings_are_no_duplicates(tmp_path):
    path = tmp_path / "c.yaml"
    text = yaml.safe_dump(REQUIRED)
    text += "defocus_refinement_config: &search\n  enabled: true\n"
    text += "orientation_refinement_config:\n  <<: *search\n  enabled: false\n"
    path.write_text(text)
    assert not Config.load(path).orientation_refinement_config.enabled


def test_alias_to_itself_is_shown_and_refused(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("&all\nparticle_stack: *all\nscoring: &list [*list]\n")
    with pytest.raises(InputError, match=r"stack\.particle_stack: .* unknown key"):
        Config.load(path)


def test_unreadable_files(tmp_path, monkeypatch):
    not_utf8 = tmp_path / "latin.yaml"
    not_utf8.write_bytes("a: Å\n".encode("latin-1"))
    locked = tmp_path / "locked.yaml"
    locked.write_text("a: 1\n")
    read = Path.read_bytes

    def refuse(path):
        if path == locked:
            raise PermissionError(13, "Permission denied")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    for path, problem in [
        (tmp_path / "absent.yaml", "no such file"),
        (tmp_path, "a directory"),
        (not_utf8, "byte 4 is not UTF-8 — save the file as UTF-8"),
        (locked, "cannot be read (Permission denied)"),
        (not_utf8 / "below", "cannot be read (Not a directory)"),
        ("nul\0byte", "cannot be read (embedded null byte)"),
    ]:
        with pytest.raises(InputError) as error:
            Config.load(path)
        (message,) = error.value.errors
        assert message.startswith(f"{path}: {problem}")
        assert " — " in message


def test_byte_order_mark_and_windows_lines_are_fine(tmp_path):
    path = tmp_path / "c.yaml"
    text = yaml.safe_dump(REQUIRED)
    path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert Config.load(path).template_volume_path == "template.mrc"


# --- Any tree, any file -----------------------------------------------------------

NAMES = sorted({name for path in leaves(Config) for name in path.split(".")})
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.dates()
    | st.text(max_size=8)
    | st.sampled_from(["1e-3", "cpu", "cuda:0", "uniform", "cartesian", "leopard_em"])
)
TREES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(NAMES) | SCALARS, inner, max_size=6)
    ),
    max_leaves=20,
)


@st.composite
def configs(draw):
    """Existing key paths with arbitrary values, to reach deep levels of the tree."""
    paths = draw(st.lists(st.sampled_from(sorted(leaves(Config))), max_size=8, unique=True))
    return with_values({path: draw(TREES) for path in paths})


def is_refused_properly(make):
    try:
        config = make()
    except InputError as error:
        assert error.errors
        assert all(message and "\n" not in message for message in error.errors)
    else:
        assert isinstance(config, Config)
        assert config.computational_config.devices


@pytest.mark.slow
@settings(deadline=None)
@given(TREES | configs())
def test_any_tree_loads_or_is_refused(tree):
    is_refused_properly(lambda: Config.from_dict(tree))


@pytest.mark.slow
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    configs().map(lambda tree: yaml.safe_dump(tree, allow_unicode=True).encode())
    | st.text(alphabet=":-[]{}&*!?<|>'\"#%@,ab10.\n \t\\").map(str.encode)
    | st.binary(max_size=40)
)
def test_any_file_loads_or_is_refused(tmp_path, content):
    path = tmp_path / "c.yaml"
    path.write_bytes(content)
    is_refused_properly(lambda: Config.load(path))
