"""Personas: who an agent is, kept as files anyone can write.

`<name>/persona.md` has YAML front matter (description, blocks, tools, model settings); the body is
the persona block. The user's own folder comes before the ones in the package.
"""

from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agentos.errors import ConfigError
from agentos.messages import Approval, Block, clean_text
from agentos.tools.servers import McpServer


class PersonaBlock(BaseModel):
    """A block a persona brings."""

    model_config = ConfigDict(extra="forbid")

    label: str = Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")
    value: str = ""
    limit: int = Field(default=2000, ge=1, le=100_000)
    """Characters."""
    description: str = ""
    read_only: bool = False


class Persona(BaseModel):
    """One persona file."""

    model_config = ConfigDict(extra="forbid")

    name: str
    description: str = ""
    blocks: list[PersonaBlock] = Field(default_factory=list)
    """Beside the persona block itself."""
    tools: list[str] | None = None
    """Names of the tools it may use; None: all."""
    approvals: dict[str, Approval] = Field(default_factory=dict)
    """By tool, where a new agent's is another than the tool's own; those of MCP servers stand with their server."""
    model: str | None = None
    """None: the model of the settings."""
    max_steps: int | None = Field(default=None, ge=1)
    mcp_servers: list[McpServer] = Field(default_factory=list)
    """Whose tools a new agent gets; one started here runs in the persona's folder, or in `cwd` below it."""
    persona_limit: int = Field(default=4000, ge=1)
    """Characters of the persona block."""
    body: str = ""

    def core_memory(self) -> list[Block]:
        """The blocks a new agent starts with, `persona` first."""
        own = Block("persona", self.body, self.persona_limit, "Who you are; adapt it as you learn what helps.")
        return [own, *(Block(**block.model_dump()) for block in self.blocks)]


def persona_folders(own: Path) -> list[Path]:
    """Where personas are looked for: the user's own folder first."""
    shipped = Path(str(files("agentos"))) / "_personas"
    checkout = Path(str(files("agentos"))).parent.parent / "personas"  # an editable install has them beside `src`
    return [own, shipped if shipped.is_dir() else checkout]


def list_personas(folders: Iterable[Path]) -> list[str]:
    """The names there are."""
    return sorted({path.parent.name for folder in folders for path in folder.glob("*/persona.md")})


def load_persona(name: str, folders: Iterable[Path]) -> Persona:
    """The persona called `name`; `ConfigError` names file and place of what is wrong."""
    folders = list(folders)
    for folder in folders:
        path = folder / name / "persona.md"
        if name.strip(".") and "/" not in name and "\\" not in name and path.exists():
            return _parse(name, path)
    known = ", ".join(list_personas(folders)) or "none"
    raise ConfigError(f"there is no persona {name!r}; there are: {known}. Your own go to {folders[0]}/NAME/persona.md")


def _parse(name: str, path: Path) -> Persona:
    try:
        text = clean_text(path.read_text("utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}; make it a text file of yours") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 at byte {error.start}; convert it first") from None
    front, body = "", text
    if text.startswith("---\n"):
        front, separator, body = text[4:].partition("\n---\n")
        if not separator:
            raise ConfigError(f"{path}: the front matter has no closing line `---`")
    values = _front_matter(path, front)
    try:
        persona = Persona.model_validate({**values, "name": name, "body": body.strip()})
        persona.mcp_servers = [_placed(server, path.parent) for server in persona.mcp_servers]
        if len(names := {server.name for server in persona.mcp_servers}) < len(persona.mcp_servers):
            raise ConfigError(f"{path}: there are two MCP servers of one name, of {sorted(names)}; rename one")
        labels = [block.label for block in persona.core_memory()]
        if len(set(labels)) < len(labels):
            twice = next(label for label in labels if labels.count(label) > 1)
            raise ConfigError(f"{path}: there are two blocks {twice!r}; `persona` is the file's body, rename yours")
        for block in persona.core_memory():
            if len(block.value) > block.limit:
                size = f"{len(block.value)} of {block.limit} characters"
                raise ConfigError(f"{path}: block {block.label!r} has {size}; raise its limit or shorten it")
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{path}: {place}: {first['msg']}") from None
    return persona


def _placed(server: McpServer, folder: Path) -> McpServer:
    if server.command is None:
        return server
    return server.model_copy(update={"cwd": str((folder / (server.cwd or ".")).absolute())})


def _front_matter(path: Path, text: str) -> dict[str, Any]:
    import yaml

    try:
        values: Any = yaml.safe_load(text) or {}
    except (yaml.YAMLError, ValueError, AttributeError, RecursionError) as error:  # a value such as 2026-13-45 too
        raise ConfigError(f"{path}: the front matter is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ConfigError(f"{path}: the front matter must be keys and values")
    return values
