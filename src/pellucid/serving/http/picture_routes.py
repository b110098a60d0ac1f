"""Routes that take pictures and show them."""

from typing import Annotated

from fastapi import FastAPI, Query, Request, Response

from pellucid.serving.http.answers import ModelInfo, PictureInfo, describe_picture
from pellucid.serving.http.bodies import client_of, receive_files
from pellucid.serving.http.downloads import draw_view
from pellucid.serving.http.openapi import FOR_ALL, UPLOADING, VIEW
from pellucid.serving.http.options import FileOptions, Id, ViewOptions
from pellucid.serving.problems import Problem, document
from pellucid.serving.records import Upload
from pellucid.serving.service import Service


def add_pictures(app: FastAPI, service: Service) -> None:
    @app.get("/v1/models", responses=document(503, *FOR_ALL), tags=["models"])
    async def models() -> list[ModelInfo]:
        """The models, and what each corrects."""
        return [ModelInfo(**model) for model in service.list_models()]

    @app.post("/v1/pictures", status_code=201, responses=document(*UPLOADING, *FOR_ALL), tags=["pictures"])
    async def add_picture(request: Request, options: Annotated[FileOptions, Query()]) -> PictureInfo:
        """Send a picture once, to restore it with several models or to look at it."""
        upload = await _receive_picture(service, request, options, is_temporary=False)
        return describe_picture(service, upload)

    @app.post("/v1/advise", responses=document(*UPLOADING, *FOR_ALL), tags=["pictures"])
    async def advise(request: Request, options: Annotated[FileOptions, Query()]) -> PictureInfo:
        """Which models suit a picture, which is not kept."""
        upload = await _receive_picture(service, request, options, is_temporary=True)
        service.records.remove(upload)
        return describe_picture(service, upload)

    @app.get("/v1/pictures/{picture_id}", responses=document(404, *FOR_ALL), tags=["pictures"])
    async def picture(picture_id: Id) -> PictureInfo:
        """What is known of a picture."""
        return describe_picture(service, service.find_upload(picture_id))

    @app.delete(
        "/v1/pictures/{picture_id}",
        status_code=204,
        responses=document(404, 409, *FOR_ALL),
        tags=["pictures"],
    )
    async def delete_picture(picture_id: Id) -> None:
        """Delete a picture that no unfinished job needs."""
        upload = service.find_upload(picture_id)
        if upload.id in service.records.list_used():
            raise Problem(409, "in use", "a job needs this picture; delete the job first")
        service.records.remove(upload)

    @app.get("/v1/pictures/{picture_id}/view", responses=VIEW, response_class=Response, tags=["pictures"])
    async def view_picture(request: Request, picture_id: Id, view: Annotated[ViewOptions, Query()]) -> Response:
        """A part of a picture as PNG in sRGB, at most longest_px wide and high."""
        upload = service.find_upload(picture_id)
        path = service.records.upload_path(upload)
        return await draw_view(service, request, path, upload.name, view)


async def _receive_picture(
    service: Service, request: Request, options: FileOptions, *, is_temporary: bool
) -> Upload:
    client = client_of(request)
    service.check_accepts_work(client)
    async with receive_files(request, service.records.temporary, options.filename, 1) as received:
        path, name = received[0].path, received[0].name
        return await service.add_upload(path, name, client, is_temporary=is_temporary, with_advice=True)
