"""Reads a configuration: YAML without its surprises, overrides, and every error in words, with its path."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, get_args

import yaml
from pydantic import BaseModel, ValidationError

from pipelines.config import Config
from pipelines.config_jobs import JobsConfig
from transforms.storage import Storage, path_of, storage_errors

MAX_CONFIG_BYTES: Final = 1_000_000
MAX_ALIASES: Final = 20  # nested ones multiply: these few become some thousand values at most


class ConfigError(ValueError):
    """What is wrong with a configuration: one line an error, each with its path in the file."""

    def __init__(self, errors: Sequence[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = list(errors)


def load_config(path: str, overrides: Sequence[str] = ()) -> Config:
    """Returns the configuration of a run of one job, with `key.path=value` overrides applied.

    Raises:
        ConfigError: with every error there is, each with its path.
    """
    config = load_run(path, overrides)
    if isinstance(config, JobsConfig):
        raise ConfigError([f"{path}: jobs: has several jobs, where one is expected"])
    return config


def load_run(path: str, overrides: Sequence[str] = ()) -> Config | JobsConfig:
    """Returns the configuration in a file, of one job or of several, with overrides applied.

    Raises:
        ConfigError: with every error there is, each with its path.
    """
    raw = _read(path)
    if len(raw) > MAX_CONFIG_BYTES:
        raise ConfigError([f"{path}: a configuration has at most {MAX_CONFIG_BYTES:,} bytes"])
    values = _parse_yaml(path, raw)
    errors = [problem for override in overrides if (problem := _apply(values, override))]
    model = JobsConfig if "jobs" in values else Config
    try:
        folder = str(Path(path).absolute().parent)
        config: Config | JobsConfig = model.model_validate(values, context={"folder": folder})
    except ValidationError as error:
        raise ConfigError([*errors, *_lines(error, model)]) from None
    if errors:
        raise ConfigError(errors)
    return config


def with_beam_options(config: Config | JobsConfig, given: Mapping[str, Any]) -> Config | JobsConfig:
    """Returns a configuration with further options for Beam, as a command line gives them.

    Raises:
        ConfigError: if they do not go with the rest.
    """
    options = {name: value for name, value in given.items() if name != "runner"}
    beam = {
        "runner": given.get("runner") or config.beam.runner,
        "options": {**config.beam.options, **options},
    }
    try:
        return type(config).model_validate({**dict(config), "beam": beam})
    except ValidationError as error:
        raise ConfigError(list(_lines(error, type(config)))) from None


def _read(path: str) -> bytes:
    """Returns a configuration's bytes, from disk or, for a launcher in a container, from a bucket."""
    try:
        if "://" in path:
            return Storage().open(path).cat_file(path_of(path))
        return Path(path).read_bytes()
    except storage_errors() as error:
        said = getattr(error, "strerror", None) or type(error).__name__
        raise ConfigError([f"{path}: cannot be read: {said}"]) from None


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader without its surprises.

    It otherwise lets the last of two equal keys win in silence, fails on a 30 February without saying where,
    and takes 010 for eight, 1:30 for ninety, and the country NO for false.
    """


class _Ambiguous(yaml.constructor.ConstructorError):
    """A word that is true or false to some, and itself to others."""


_PLAIN: Final = tuple(f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "timestamp", "bool"))
_SWITCH: Final = "!switch"
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _PLAIN]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_PLAIN[0], re.compile(r"-?(0|[1-9][0-9]{0,99})$"), list("-0123456789"))
_Loader.add_implicit_resolver(
    _PLAIN[1],
    re.compile(r"-?(0|[1-9][0-9]{0,99})(\.[0-9]+)?([eE][-+]?[0-9]+)?$"),
    list("-0123456789"),
)
_Loader.add_implicit_resolver(_PLAIN[3], re.compile(r"(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_Loader.add_implicit_resolver(_SWITCH, re.compile(r"(?i:yes|no|on|off)$"), list("yYnNoO"))


def _switch(_loader: _Loader, node: yaml.ScalarNode) -> None:
    problem = f"{node.value} may mean true or false, or be a text: write true or false, or put it in quotes"
    raise _Ambiguous(None, None, problem, node.start_mark)


_Loader.add_constructor(_SWITCH, _switch)


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[str] = set()
    for key, _ in node.value:
        problem = None
        if not isinstance(key, yaml.ScalarNode):
            problem = "a key is a name"
        elif key.tag == "tag:yaml.org,2002:merge":
            problem = "'<<' is not supported; write the keys out"
        elif key.value in seen:
            problem = f"the key {key.value!r} stands twice"
        if problem:
            raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
        seen.add(key.value)
    return dict(loader.construct_pairs(node, deep=True))


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def _parse_yaml(path: str, raw: bytes) -> dict[str, Any]:
    values: object = None
    try:
        text = raw.decode()
        aliases = sum(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text))
        if aliases <= MAX_ALIASES:
            values = yaml.load(text, Loader=_Loader)
    except UnicodeDecodeError:
        raise ConfigError([f"{path}: is no text in UTF-8"]) from None
    except RecursionError:
        raise ConfigError([f"{path}: no valid YAML: nested too deep"]) from None
    except (yaml.YAMLError, ValueError, TypeError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark else ""
        said = "" if isinstance(error, _Ambiguous) else "no valid YAML: "
        raise ConfigError([f"{path}{place}: {said}{_yaml_problem(error)}"]) from None
    if aliases > MAX_ALIASES:
        raise ConfigError([f"{path}: more than {MAX_ALIASES} YAML aliases"])
    if not isinstance(values, dict):
        raise ConfigError([f"{path}: must hold sections like 'source:' and 'destination:'"])
    return values


def _yaml_problem(error: Exception) -> str:
    """Returns what is wrong in words that lead to the cause, for the traps that people fall into here."""
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or type(error).__name__
    if "'\\t'" in problem:
        return "a tab; YAML is indented by spaces"
    if "but got '{'" in problem:
        return f"{problem} (between braces a value with {{date}} needs quotes)"
    return str(problem)


def _apply(values: dict[str, Any], override: str) -> str | None:
    """Sets one value; returns what is wrong with the override, if anything is."""
    key, found, text = override.partition("=")
    names = key.split(".")
    if not found or not all(names):
        return f"--set {key}: must look like key.path=value"
    try:
        value = yaml.load(text, Loader=_Loader) if text else ""
    except _Ambiguous as error:
        return f"--set {key}: {error.problem}"
    except (yaml.YAMLError, ValueError, TypeError, RecursionError):
        return f"--set {key}: the value is no valid YAML; a text with special characters needs quotes"
    section: Any = values
    for name in names[:-1]:
        if isinstance(section, dict) and section.get(name) is None:
            section[name] = {}
        section = _inner(section, name)
        if section is None:
            return f"--set {key}: {name} has no keys"
    if not isinstance(section, dict):
        return f"--set {key}: {names[-2]} has no keys"
    section[names[-1]] = value
    return None


def _inner(section: Any, name: str) -> Any:
    """Returns the section or list that stands at a name, or in a list at a number; None if there is none."""
    if isinstance(section, list):
        inner = section[int(name)] if name.isdigit() and int(name) < len(section) else None
    else:
        inner = section[name]
    return inner if isinstance(inner, (dict, list)) else None


def _lines(error: ValidationError, model: type[BaseModel]) -> Iterator[str]:
    """Yields an error a line, with its path and without the value, which may be a secret."""
    messages: dict[str, list[str]] = {}
    for detail in error.errors(include_url=False, include_input=False, include_context=False):
        path = ".".join(str(part) for part in detail["loc"] if not _is_union_arm(part))
        messages.setdefault(path, []).append(_message(model, detail["type"], detail["msg"], detail["loc"]))
    for path, found in messages.items():
        # What may be one of several kinds fails once for each.
        first, *others = found
        rest = "".join(f" or {other.removeprefix('must be ')}" for other in others)
        yield f"{path or 'configuration'}: {first}{rest}"


_MESSAGES: Final = {
    "missing": "is required",
    "invalid_key": "a key is a name",
    "string_type": "must be text",
    "list_type": "must be a list",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "dict_type": "must be a section with keys of its own",
    "model_type": "must be a section with keys of its own",
}


def _message(model: type[BaseModel], kind: str, message: str, loc: Sequence[str | int]) -> str:
    if kind == "extra_forbidden":
        return f"unknown key; {_what_there_is(model, loc)}"
    return _MESSAGES.get(kind) or message.removeprefix("Value error, ").replace("Input should", "must", 1)


def _what_there_is(section: type[BaseModel], loc: Sequence[str | int]) -> str:
    """Returns the key that was probably meant by the last one of a path, or all that its section has."""
    for part in loc[:-1]:
        if not isinstance(part, int):
            section = next(s for s in _sections(section.model_fields[part].annotation))
    names = [field.alias or name for name, field in section.model_fields.items()]
    close = difflib.get_close_matches(str(loc[-1]), names, 1)
    return f"did you mean {close[0]}?" if close else f"there are {', '.join(names)}"


def _sections(annotation: object) -> Iterator[type[BaseModel]]:
    """Yields the section that a field holds, if it holds one."""
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield kind


def _is_union_arm(part: str | int) -> bool:
    return isinstance(part, str) and (part in ("str", "int") or "[" in part)
