"""Laws of `--set` and of patches."""

from typing import Annotated, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, model_validator

from metarestore.config.base import Strict
from metarestore.config.document import read_document, validate
from metarestore.config.keypath import format_path, split_path
from metarestore.config.overrides import apply_overrides, merge, parse_override
from metarestore.errors import UserError


class Plain(Strict):
    kind: Literal["plain"]


class Maml(Strict):
    kind: Literal["maml"]
    inner_steps: int = Field(1, le=9)


class Training(Strict):
    steps: int = 1
    lr: float = 1.0

    @model_validator(mode="after")
    def _pair(self):
        if self.steps == self.lr:
            raise ValueError(f"steps and lr are both {self.steps}; change one")
        return self


class Study(Strict):
    learner: Annotated[Plain | Maml, Field(discriminator="kind")]
    training: Training = Training(steps=2)
    sizes: list[int] = Field([])


TEXT = "learner: {kind: maml, inner_steps: 3}\ntraining: {steps: 5}\nsizes: [1, 2]\n"


@pytest.fixture
def document(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(text=TEXT):
        (tmp_path / "x.yaml").write_text(text)
        return read_document("x.yaml")

    return write


def lines(document, *overrides):
    with pytest.raises(UserError) as raised:
        validate(document, Study, [parse_override(text) for text in overrides])
    return list(raised.value.problems)


class TestParse:
    @pytest.mark.parametrize(
        ("text", "path", "value"),
        [
            ("a.b=1e-4", ("a", "b"), 1e-4),
            ("a=1", ("a",), 1),
            ("a=yes", ("a",), "yes"),
            ("a=[1, x]", ("a",), [1, "x"]),
            ("a={kind: ray}", ("a",), {"kind": "ray"}),
            ("a=null", ("a",), None),
            ("a=''", ("a",), ""),
            ("a='b=c'", ("a",), "b=c"),
            ("a=b=c", ("a",), "b=c"),
            ("a = 2 ", ("a",), 2),
            ("a.0.b=1", ("a", 0, "b"), 1),
            ("a[0].b=1", ("a", 0, "b"), 1),
            ('a["b.c"]=1', ("a", "b.c"), 1),
            (r'a["b\q"]=1', ("a", r"b\q"), 1),
        ],
    )
    def test_reads(self, text, path, value):
        override = parse_override(text)
        assert (override.path, override.value, override.text) == (path, value, text)

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("a", "has no '='; write key.path=value"),
            ("", "has no '='; write key.path=value"),
            ("=1", "no key path before '='; write key.path=value"),
            (".a=1", "no key path before '='; write key.path=value"),
            ("a..b=1", "no key path before '='; write key.path=value"),
            ("a[0]b=1", "no key path before '='; write key.path=value"),
            ("a.=1", "no key path before '='; write key.path=value"),
            ("a b=1", "no key path before '='; write key.path=value"),
            ("a=", "has no value; write a=null for none, a='' for empty text"),
            ("a=# x", "has no value; write key.path=value"),
            ("a=- 1", "block mappings and lists are not allowed here, use brackets; write key.path=value"),
            ("a=b: c", "block mappings and lists are not allowed here, use brackets; write key.path=value"),
            ("a=[1", "not valid YAML: while parsing a flow sequence, "),
            ("a=*b", "alias *b has no anchor &b before it; quote the value if * is meant"),
            ("a=!!python/name:os.system x", "tags are not supported, got !!python/name:os.system"),
        ],
    )
    def test_refuses(self, text, problem):
        with pytest.raises(UserError) as raised:
            parse_override(text)
        (line,) = raised.value.problems
        assert line.startswith(f"--set {text!r}: {problem}")

    @settings(max_examples=100, deadline=None)
    @given(st.lists(st.text(max_size=6) | st.integers(0, 999), min_size=1, max_size=4))
    def test_a_path_reads_back_as_it_is_written_in_messages(self, path):
        if isinstance(path[0], int):
            path = ["first", *path]
        assert split_path(format_path(path) + "=1") == (tuple(path), "=1")

    @settings(max_examples=200, deadline=None)
    @given(st.text(alphabet="ab.=[]{}'\"0:-#*!& \\,%\n", max_size=12))
    def test_any_text_is_read_or_refused(self, text):
        try:
            outcome = parse_override(text).text
        except UserError as error:
            outcome = error.problems[0].removeprefix("--set ")
        assert outcome.startswith(text) or outcome.startswith(f"{text!r}: ")


class TestApply:
    DATA = {"a": {"b": 1}, "l": [{"x": 1}, 2], "e": None, "m": {"2": 3}}  # noqa: RUF012

    @pytest.mark.parametrize(
        ("text", "entry", "value"),
        [
            ("a.b=2", "a", {"b": 2}),
            ("a.c=2", "a", {"b": 1, "c": 2}),
            ("a=2", "a", 2),
            ("new.deep.key=2", "new", {"deep": {"key": 2}}),
            ("e.x=2", "e", {"x": 2}),
            ("l.0.x=2", "l", [{"x": 2}, 2]),
            ("l[1]=7", "l", [{"x": 1}, 7]),
            ("m.2=7", "m", {"2": 7}),
        ],
    )
    def test_sets_one_value_and_leaves_the_rest(self, text, entry, value):
        assert apply_overrides(self.DATA, [parse_override(text)]) == {**self.DATA, entry: value}

    def test_the_last_one_counts(self):
        assert apply_overrides({}, [parse_override("a=1"), parse_override("a=2")]) == {"a": 2}

    def test_is_pure(self):
        override = parse_override("a.b={c: [1]}")
        before = repr((self.DATA, override))
        result = apply_overrides(self.DATA, [override, parse_override("a.b.c.0=9"), parse_override("l.0.x=9")])
        assert result["a"]["b"] == {"c": [9]}
        assert repr((self.DATA, override)) == before

    def test_nothing_to_set_is_the_identity(self):
        assert apply_overrides(self.DATA, []) == self.DATA

    def test_reports_every_path_that_is_blocked(self):
        overrides = [parse_override(text) for text in ("a.b.c=1", "l.x=1", "l.2=1", "none[0].x=1", "e=1")]
        with pytest.raises(UserError) as raised:
            apply_overrides(self.DATA, overrides)
        assert raised.value.problems == (
            "--set a.b.c=1: a.b is 1, not a mapping; set a.b itself to replace it",
            "--set l.x=1: l is a list; write an index, e.g. l[0], instead of 'x'",
            "--set l.2=1: l has 2 entries, so there is no l[2]; the first is l[0]",
            "--set none[0].x=1: there is no list at none yet; write none=[...]",
        )


class TestOrigin:
    """An error names the override when the override caused it, and the file otherwise."""

    @pytest.mark.parametrize(
        ("override", "line"),
        [
            ("training.steps=abc", "training.steps: must be a whole number, got 'abc'"),
            ("training={steps: abc}", "training.steps: must be a whole number, got 'abc'"),
            ("training=3", "training: must be a mapping (key: value), got 3"),
            ("training.stesp=3", "training: unknown key 'stesp'; did you mean 'steps'?"),
            ("trainig.steps=3", "unknown key 'trainig'; did you mean 'training'?"),
            ("training.lr=5", "training: steps and lr are both 5; change one"),
            ("learner.kind=mam", "learner: unknown kind 'mam'; did you mean 'maml'?"),
            ("sizes.1=x", "sizes[1]: must be a whole number, got 'x'"),
            ("learner={}", "learner.kind: is missing; write one of plain, maml"),
        ],
    )
    def test_of_the_override(self, document, override, line):
        assert lines(document(), override) == [f"--set {override}: {line}"]

    def test_of_the_file_comes_first(self, document):
        text = "learner: {kind: maml, inner_steps: 10}\ntraining: {steps: x}\nsizes: [a, b]\n"
        assert lines(document(text), "training.lr=y", "sizes.0=c") == [
            "x.yaml:1:36: learner.inner_steps: 10 is above 9",
            "x.yaml:2:19: training.steps: must be a whole number, got 'x'",
            "x.yaml:3:12: sizes[1]: must be a whole number, got 'b'",
            "--set training.lr=y: training.lr: must be a number, got 'y'",
            "--set sizes.0=c: sizes[0]: must be a whole number, got 'c'",
        ]

    def test_a_mistake_of_the_file_stays_there_beside_an_override(self, document):
        text = "learner: {kind: maml, zzz: 1}\n"
        assert lines(document(text), "learner.inner_steps=2") == [
            "x.yaml:1:23: learner: unknown key 'zzz'; known keys: kind, inner_steps"
        ]

    def test_of_two_overrides_the_nearest_then_the_last_is_named(self, document):
        assert lines(document(), "sizes=[x]", "training.steps=a", "training.steps=b") == [
            "--set sizes=[x]: sizes[0]: must be a whole number, got 'x'",
            "--set training.steps=b: training.steps: must be a whole number, got 'b'",
        ]

    def test_an_override_can_mend_the_file(self, document):
        study = validate(document("learner: {kind: maml}\nsizes: x\n"), Study, [parse_override("sizes=[3]")])
        assert study.sizes == [3]


MAPPINGS = st.recursive(
    st.dictionaries(st.sampled_from("abc"), st.integers() | st.lists(st.integers(), max_size=2), max_size=3),
    lambda inner: st.dictionaries(st.sampled_from(["a", "b", "c"]), inner | st.integers(), max_size=3),
    max_leaves=8,
)
KINDS = MAPPINGS.flatmap(lambda mapping: st.sampled_from(["x", "y"]).map(lambda kind: {"kind": kind, **mapping}))


class TestMerge:
    @settings(max_examples=100, deadline=None)
    @given(MAPPINGS | KINDS)
    def test_the_empty_patch_and_the_empty_base_change_nothing(self, mapping):
        assert merge(mapping, {}) == mapping == merge({}, mapping)

    @settings(max_examples=100, deadline=None)
    @given(MAPPINGS | KINDS, MAPPINGS | KINDS)
    def test_is_idempotent_and_the_patch_wins_everywhere(self, base, patch):
        merged = merge(base, patch)
        assert merge(merged, patch) == merged

        def check(merged, patch):
            for key, value in patch.items():
                if isinstance(value, dict):
                    check(merged[key], value)
                else:
                    assert merged[key] == value

        check(merged, patch)

    @settings(max_examples=100, deadline=None)
    @given(MAPPINGS, MAPPINGS)
    def test_keeps_what_the_patch_does_not_name(self, base, patch):
        merged = merge(base, patch)
        assert all(merged[key] == value for key, value in base.items() if key not in patch)
        assert set(merged) == set(base) | set(patch)

    def test_another_kind_replaces_the_mapping_and_the_same_kind_is_merged(self):
        base = {"learner": {"kind": "maml", "inner_steps": 5}, "seed": 0}
        assert merge(base, {"learner": {"kind": "plain"}}) == {"learner": {"kind": "plain"}, "seed": 0}
        assert merge(base, {"learner": {"kind": "maml", "lr": 1}})["learner"] == {
            "kind": "maml",
            "inner_steps": 5,
            "lr": 1,
        }
        assert merge(base, {"learner": {"lr": 1}})["learner"] == {"kind": "maml", "inner_steps": 5, "lr": 1}

    def test_lists_are_replaced(self):
        assert merge({"a": [1, 2, 3]}, {"a": [4]}) == {"a": [4]}

    def test_shares_nothing_with_what_it_was_given(self):
        base, patch = {"a": {"b": [1]}}, {"c": {"d": [2]}}
        merged = merge(base, patch)
        merged["a"]["b"].append(0)
        merged["c"]["d"].append(0)
        assert (base, patch) == ({"a": {"b": [1]}}, {"c": {"d": [2]}})


@pytest.mark.parametrize("order", [("engine.kind=ray", "engine.workers=3"), ("engine.workers=3", "engine.kind=ray")])
def test_another_kind_drops_the_keys_of_the_old_one_but_no_override(order):
    data = {"engine": {"kind": "cluster", "address": "here", "nodes": 4}}
    assert apply_overrides(data, [parse_override(text) for text in order]) == {"engine": {"kind": "ray", "workers": 3}}
    same = apply_overrides(data, [parse_override("engine.kind=cluster"), parse_override("engine.nodes=5")])
    assert same == {"engine": {"kind": "cluster", "address": "here", "nodes": 5}}
