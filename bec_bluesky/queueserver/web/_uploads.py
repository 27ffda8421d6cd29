"""Plans of an uploaded spreadsheet go to the queue, all or none."""

import asyncio

from fastapi import APIRouter, HTTPException, Request, Response, status
from starlette.datastructures import UploadFile

from bec_bluesky.errors import BadArgumentError
from bec_bluesky.queueserver._methods import Methods
from bec_bluesky.queueserver.web._bodies import answer
from bec_bluesky.queueserver.web._calls import carry_out
from bec_bluesky.queueserver.web._door import Door
from bec_bluesky.queueserver.web._spreadsheet import plans_of

__all__ = ["upload_router"]

_LARGEST = 16 * 1024 * 1024
"""Bytes."""


def upload_router(methods: Methods, door: Door) -> APIRouter:
    """Make the route."""
    router = APIRouter(tags=["queue server"])

    @router.post("/queue/upload/spreadsheet", response_model=None)
    async def upload(request: Request) -> Response:
        """Add the plans of a spreadsheet (form field `spreadsheet`: a `.csv` or `.xlsx` file) to the queue."""
        principal = door.admit(request, "write:queue:edit")
        async with request.form(max_files=1, max_part_size=_LARGEST) as form:
            file = form.get("spreadsheet")
            if isinstance(file, str) or file is None:
                raise HTTPException(
                    status.HTTP_422_UNPROCESSABLE_CONTENT,
                    [{"type": "missing", "loc": ["body", "spreadsheet"], "msg": "Field required", "input": None}],  # pyright: ignore[reportArgumentType]  # as FastAPI says it
                )
            name, content = file.filename or "", await _read(file)
        try:
            items = await asyncio.to_thread(plans_of, name, content)
        except BadArgumentError as error:
            return answer({"success": False, "msg": str(error), "items": [], "results": []})
        params = {"items": items, "user": principal.name, "user_group": principal.group}
        return answer(await carry_out(methods, "queue_item_add_batch", params))

    return router


async def _read(file: UploadFile) -> bytes:
    content = await file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise HTTPException(
            status.HTTP_413_CONTENT_TOO_LARGE, f"the spreadsheet has more than {_LARGEST:,} bytes: send it in parts"
        )
    return content
