"""Core memory: the blocks, put right in place, locked, and taken back to how they read before."""

from typing import Annotated, Any

from fastapi import APIRouter, Form, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from agentos import curate, values
from agentos.errors import AgentOSError, NotFound
from agentos.messages import Block, clean_text
from agentos.server.inspector.render import agent_path, page, see, text_part
from agentos.server.own import Json, agent_record
from agentos.server.replies import answer
from agentos.server.service import Service, Serving
from agentos.state import AgentRecord

pages = APIRouter(prefix="/agents/{name}/core", include_in_schema=False)
router = APIRouter(prefix="/agentos/v1/agents/{agent}/blocks", tags=["agentos"])
_PAGE = 20
VersionId = Annotated[int | None, Query(ge=1, le=2**62)]
Expected = Annotated[int | None, Field(ge=1)]


# as JSON


class BlockChange(BaseModel):
    """What of a block changes."""

    model_config = ConfigDict(extra="forbid")
    value: str | None = None
    read_only: bool | None = None
    expected: Expected = None
    """The version the change was made from; 409 when the block's text changed since."""


class Restore(BaseModel):
    """Which version a block is to read as again."""

    model_config = ConfigDict(extra="forbid")
    version: int = Field(ge=1)
    expected: Expected = None


@router.get("")
async def blocks(agent: str, serving: Serving) -> Response:
    """Core memory of an agent."""
    record = await agent_record(serving, agent)
    return answer((await serving.store.read(lambda tx: values.memory_value(tx, record)))["blocks"])


@router.patch("/{block}")
async def change(agent: str, block: str, body: BlockChange, serving: Serving) -> Response:
    """Change a block, by label or id, as a person; 409 with how it reads now when it changed since `expected`."""
    record, found = await _block(serving, agent, block)
    given = {"value": body.value, "read_only": body.read_only}
    try:
        changed = await _change(serving, record, found, body.expected, **given)
    except curate.BlockChanged as lost:
        return answer({"detail": str(lost), **await _both(serving, record, lost, body.value)}, 409)
    return answer(await _value(serving, record, changed))


@router.get("/{block}/versions")
async def versions(
    agent: str,
    block: str,
    serving: Serving,
    before: Annotated[int | None, Query(ge=1)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = _PAGE,
) -> Response:
    """The versions of a block, newest first, with what each changed."""
    record, found = await _block(serving, agent, block)
    return answer(await serving.store.read(lambda tx: values.versions_value(tx, found, record.id, before, limit)))


@router.post("/{block}/restore")
async def restore(agent: str, block: str, body: Restore, serving: Serving) -> Response:
    """Let a block read as it did at one of its versions."""
    record, found = await _block(serving, agent, block)
    try:
        restored = await _restore(serving, record, found, body.version, body.expected)
    except curate.BlockChanged as lost:
        return answer({"detail": str(lost), **await _both(serving, record, lost, None)}, 409)
    return answer(await _value(serving, record, restored))


# as pages


@pages.get("")
async def core_page(
    request: Request, name: str, serving: Serving, edit: str | None = None, done: str | None = None
) -> Response:
    """Every block; `edit` (a block's id) opens its text, `done` says that it was changed."""
    return await _core(request, serving, name, edit=edit, done=done)


@pages.post("/{block}")
async def save(
    request: Request,
    name: str,
    block: str,
    serving: Serving,
    value: Annotated[str, Form()] = "",
    expected: Annotated[int | None, Form(ge=1)] = None,
) -> Response:
    """Save the text of a block; what cannot be saved is shown again with the reason."""
    record, found = await _block(serving, name, block)
    value = value.replace("\r\n", "\n")  # as browsers send line ends
    try:
        await _change(serving, record, found, expected, value=value)
    except curate.BlockChanged as lost:
        both = await _both(serving, record, lost, value)
        return await _core(request, serving, name, 409, edit=block, typed=value, refused=str(lost), **both)
    except AgentOSError as error:
        return await _core(request, serving, name, 400, edit=block, typed=value, refused=str(error), expected=expected)
    return see(agent_path(name, "core", done=block))


@pages.post("/{block}/lock")
async def lock(name: str, block: str, serving: Serving, read_only: Annotated[bool, Form()]) -> Response:
    """Let only people change a block, or the agent too."""
    record, found = await _block(serving, name, block)
    await _change(serving, record, found, None, read_only=read_only)
    return see(agent_path(name, "core", done=block))


@pages.get("/{block}")
async def versions_page(
    request: Request, name: str, block: str, serving: Serving, before: VersionId = None, version: VersionId = None,
    done: VersionId = None, at: Annotated[int, Query(ge=0, le=2**62)] = 0,
) -> Response:  # fmt: skip
    """A block's versions with what each changed, or one `version` in full; `done` tells which was just restored."""
    record, found = await _block(serving, name, block)
    alone = version is not None
    part = (version + 1, 1) if version is not None else (before, _PAGE)
    value = await serving.store.read(lambda tx: values.versions_value(tx, found, record.id, *part))
    if alone and [v["id"] for v in value["versions"]] != [version]:
        raise NotFound(f"block {found.label!r} has no version {version}")
    following, whole = value.pop("before"), text_part(value["versions"][0]["value"] if alone else "", at)
    return page(
        request, "versions.html", agent=record.name, view="core", first=before is None, before=following, done=done,
        alone=alone, part=whole, **value,
    )  # fmt: skip


@pages.post("/{block}/restore")
async def restore_page(
    name: str,
    block: str,
    serving: Serving,
    version: Annotated[int, Form(ge=1)],
    expected: Annotated[int | None, Form(ge=1)] = None,
) -> Response:
    """Let a block read as it did at one of its versions."""
    record, found = await _block(serving, name, block)
    await _restore(serving, record, found, version, expected)
    return see(agent_path(name, "core", block, done=version))


async def _core(
    request: Request, serving: Service, name: str, status: int = 200, *, edit: str | None = None,
    done: str | None = None, typed: str | None = None, refused: str | None = None, current: Json | None = None,
    expected: int | None = None, **_: Any,
) -> Response:  # fmt: skip
    record = await agent_record(serving, name)
    value = await serving.store.read(lambda tx: values.memory_value(tx, record))
    return page(
        request, "core.html", status, view="core", edit=edit, done=done, typed=typed, refused=refused, current=current,
        expected=expected, **value,
    )  # fmt: skip


# what both do


async def _block(serving: Service, agent: str, named: str) -> tuple[AgentRecord, Block]:
    record = await agent_record(serving, agent)
    found: list[Block] = await serving.store.read(lambda tx: tx.blocks(record.id))
    block = next((b for b in found if named in (b.label, f"b{b.id}")), None)
    if block is None:
        labels = ", ".join(b.label for b in found) or "none"
        raise NotFound(f"agent {record.name!r} has no block {named!r}; it has: {labels}")
    return record, block


async def _change(serving: Service, record: AgentRecord, block: Block, expected: int | None, **given: Any) -> Block:
    turn = await (await serving.runtime.agent_of(record.id)).turn()
    said = {key: clean_text(v) if isinstance(v, str) else v for key, v in given.items() if v is not None}
    return await curate.change_block(serving.store, block.id, turn, expected, **said)


async def _restore(serving: Service, record: AgentRecord, block: Block, version: int, expected: int | None) -> Block:
    turn = await (await serving.runtime.agent_of(record.id)).turn()
    return await curate.restore_block(serving.store, turn, block.id, version, expected)


async def _value(serving: Service, record: AgentRecord, block: Block) -> Json:
    return await serving.store.read(lambda tx: values.block_value(tx, block, record.id))


async def _both(serving: Service, record: AgentRecord, lost: curate.BlockChanged, value: str | None) -> Json:
    """The two texts of an edit that lost a race."""
    return {"current": await _value(serving, record, lost.block), "yours": value}
