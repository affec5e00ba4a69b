"""Strict, frozen settings, read from Python, TOML or JSON."""

from __future__ import annotations

import difflib
import operator
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ModelWrapValidatorHandler, ValidationError
from typing_extensions import Self

from ketfit.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_NAME = re.compile(r'"[^"]+"|[^.="]+')
_SETTING = re.compile(rf"(?P<key>(?:{_NAME.pattern})(?:\.(?:{_NAME.pattern}))*)=(?P<value>.*)", re.DOTALL)

Positive = Annotated[int, Field(ge=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Config(BaseModel):
    """A frozen set of settings that refuses unknown keys, wrong types and numbers out of range."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, revalidate_instances="never")

    ADDED_SETTINGS: ClassVar[Mapping[str, Any]] = {}
    """Settings that earlier versions did not have, with the values that mean what was done without them."""

    def __init__(self, /, **settings: Any) -> None:
        try:
            super().__init__(**_plain(settings))
        except ValidationError as error:
            raise ConfigError(_explain(type(self), error)) from None
        except RecursionError:
            raise ConfigError(f"the settings of {type(self).__name__} are nested too deeply") from None

    def updated(self, /, **settings: Any) -> Self:
        """Return a checked copy with some settings changed; defaults that follow from changed settings follow them."""
        return type(self)(**{**{name: getattr(self, name) for name in self.model_fields_set}, **settings})

    @classmethod
    def _validated_with_defaults(
        cls, settings: Any, defaults: Mapping[str, Any], handler: ModelWrapValidatorHandler[Self]
    ) -> Self:
        """Return the result of a wrapping validator, with defaults that count as settings that were not given."""
        config = handler({**defaults, **settings} if defaults else settings)
        config.model_fields_set.difference_update(defaults.keys() - settings.keys() if defaults else ())
        return config

    def identity(self) -> dict[str, Any]:
        """Return the settings as JSON values to identify a run by.

        `ADDED_SETTINGS` are left out at those values, so that identities written by earlier versions stay valid.
        """
        unused = {name for name, value in self.ADDED_SETTINGS.items() if getattr(self, name) == value}
        return self.model_dump(mode="json", exclude=unused)

    def identity_json(self) -> str:
        """Return `identity` as JSON text."""
        unused = {name for name, value in self.ADDED_SETTINGS.items() if getattr(self, name) == value}
        return self.model_dump_json(exclude=unused)

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any], where: str = "the configuration") -> Self:
        """Return settings from a parsed JSON or TOML table; `where` names it in errors.

        Raises:
            ConfigError: a key is unknown, or a value does not fit.
        """
        try:
            return cls(**settings)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None

    @classmethod
    def from_toml(cls, path: str | Path) -> Self:
        """Return settings from a TOML file.

        Raises:
            ConfigError: the file cannot be read, is not TOML, or a setting does not fit.
        """
        return cls.from_mapping(read_toml(path), where=str(path))


def parse_toml_value(text: str) -> Any:
    """Return a value written in TOML; a bare word is a string."""
    try:
        document = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):  # such as a number of thousands of digits
        return text
    return document["value"] if len(document) == 1 else text


def set_dotted_key(tables: dict[str, Any], setting: str) -> None:
    """Set ``name=value`` or ``table.name=value``, with a TOML value, in parsed tables.

    A name with a dot or an equals sign stands in double quotes, such as ``class_weight."a.b"=2``.

    Raises:
        ConfigError: it is not written like that, or the table is a setting.
    """
    written = _SETTING.fullmatch(setting)
    if written is None:
        raise ConfigError(f"--set {setting!r}: write it as name=value or table.name=value")
    *parents, name = (part.removeprefix('"').removesuffix('"') for part in _NAME.findall(written["key"]))
    value = written["value"]
    table = tables
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise ConfigError(f"--set {setting!r}: {parent} is a setting, not a table")
    table[name] = parse_toml_value(value)


def read_toml(path: str | Path) -> dict[str, Any]:
    """Return the tables of a TOML file.

    Raises:
        ConfigError: the file cannot be read or is not TOML.
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8-sig"))  # editors of Windows write a byte order mark
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not TOML in UTF-8: {error}") from error


def _plain(value: Any) -> Any:
    """Return `value` with its NumPy, torch and pandas numbers as Python numbers, for strict validation."""
    if type(value) is dict:
        return {key: _plain(each) for key, each in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(_plain, value))
    if hasattr(value, "tolist"):  # scalars, arrays, tensors, Series
        return value.tolist()
    return operator.index(value) if hasattr(value, "__index__") and not isinstance(value, bool) else value


def _explain(config: type[Config], error: ValidationError) -> str:
    """Return one readable line from pydantic's list of errors."""
    lines, missing, meant = [], [], set()
    for item in error.errors():
        name = ".".join(map(str, item["loc"]))
        if item["type"] == "extra_forbidden":
            close = difflib.get_close_matches(name, config.model_fields, n=1) or _elsewhere(config, name)
            meant.update(close)
            hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(config.model_fields)}"
            lines.append(f"{config.__name__} has no setting {name!r}; {hint}")
        elif item["type"] == "missing" and name in config.model_fields:
            missing.append(name)
        elif item["type"] == "value_error":
            lines.append(str(item["ctx"]["error"]))
        else:
            lines.append(f"{name}={item['input']!r}: {item['msg'][0].lower()}{item['msg'][1:]}")
    # A misspelt setting is not reported as missing, too.
    lines += [f"{config.__name__} needs the setting {name!r}" for name in missing if name not in meant]
    return "; ".join(lines)


def _elsewhere(config: type[Config], name: str) -> list[str]:
    """Return another place of a setting with this name, such as train.epochs."""
    return [
        f"{table}.{name}"
        for table, field in config.model_fields.items()
        for part in (field.annotation, *get_args(field.annotation))
        if isinstance(part, type) and issubclass(part, Config) and name in part.model_fields
    ]
