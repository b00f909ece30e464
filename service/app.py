"""`create_app`: the service put together. It opens what a request needs, in order, and closes it in reverse."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import Depends, FastAPI, Request
from fastapi.responses import FileResponse, PlainTextResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.staticfiles import StaticFiles

from indexer import audit_anchors, journal, snapshots
from indexer.database import Database, open_database, transaction
from indexer.erasure import Eraser
from indexer.images import ImageStore
from indexer.intake import recover_interrupted
from indexer.replica import Replica
from indexer.settings import refuse_unknown_variables
from indexer.succession import Succession
from service.access import Access
from service.admission import Admission
from service.batching import BatchingEncoder
from service.context import Context, QueryEncoder
from service.edge import Edge
from service.encoders import CheckpointFiles, EncoderFiles
from service.errors import Refusal, install_error_handlers
from service.intake_queue import IntakeQueue
from service.logs import configure_logs
from service.metrics import ServiceMetrics
from service.openapi import describe
from service.operations import ReadinessProbe
from service.routes import (
    api_keys,
    audit,
    cameras,
    case_exports,
    cases,
    checkpoints,
    erasures,
    explanations,
    facets,
    holds,
    image_changes,
    images,
    ingestions,
    operations,
    retention,
    saved_searches,
    searches,
    session,
    setup,
    users,
    verdicts,
)
from service.settings import ServiceSettings
from service.sweeper import Sweeper
from service.upgrades import open_active

if TYPE_CHECKING:
    from indexer.milvus import Milvus

PAGE = Path(__file__).parent / "page" / "dist"
NOT_BUILT = "The page has not been built: run `make page` once. The API under /api/v1 works without it.\n"
ROUTES = (
    *(searches, explanations, saved_searches, facets, images, image_changes, ingestions, cameras, checkpoints),
    *(erasures, holds, retention, cases, verdicts, case_exports, audit, session, users, api_keys, setup, operations),
)
KEY_PARAMETERS = frozenset({"api_key", "apikey", "key", "token", "access_token"})


def create_app(
    settings: ServiceSettings,
    *,
    encoder: QueryEncoder | None = None,
    database: Database | None = None,
    files: EncoderFiles | None = None,
    opened_elsewhere: bool = False,
) -> FastAPI:
    """The ASGI application. Nothing is opened before it starts.

    `encoder`, `database` and `files` replace the checkpoint, the database and the checkpoint files of the settings; who
    passes them closes them. With `opened_elsewhere` the application opens nothing: it answers that it is starting until
    somebody sets `app.state.context`.
    """
    configure_logs(settings.log_level)
    metrics = ServiceMetrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if opened_elsewhere:
            yield
            return
        stack = ExitStack()
        try:
            app.state.context = await run_in_threadpool(
                open_context, stack, settings, encoder, database, files, metrics
            )
            yield
        finally:
            await run_in_threadpool(stack.close)

    app = FastAPI(
        title="person-search",
        version="1",
        lifespan=lifespan,
        openapi_url="/api/v1/openapi.json",
        docs_url=None,  # the usual documentation pages load scripts from other sites
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.metrics = metrics
    app.state.context = None  # until it is open
    app.state.stopping = False
    app.state.readiness = ReadinessProbe(settings.readiness_seconds)
    routers = [routes.router for routes in ROUTES]
    for router in routers:
        app.include_router(router, dependencies=[Depends(refuse_unknown_parameters)])
    app.add_api_route("/", index, methods=["GET"], include_in_schema=False)
    if PAGE.is_dir():
        app.mount("/page", StaticFiles(directory=PAGE), name="page")
    install_error_handlers(app, routers)
    app.add_middleware(Edge, allowed_hosts=settings.answers_for, metrics=metrics)
    describe(app, routers)
    return app


def open_context(
    stack: ExitStack,
    settings: ServiceSettings,
    encoder: QueryEncoder | None = None,
    database: Database | None = None,
    files: EncoderFiles | None = None,
    metrics: ServiceMetrics | None = None,
) -> Context:
    """Open the parts of the service, each of them closed by `stack`."""
    metrics = metrics or ServiceMetrics()

    def batching(encoder: QueryEncoder) -> QueryEncoder:
        return BatchingEncoder(encoder, settings.batch_size, metrics.embedded_texts)

    refuse_unknown_variables(ServiceSettings)
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    if database is None:
        database = stack.enter_context(open_database(settings))
    files = files or CheckpointFiles(settings)
    encoder = batching(open_active(database, settings, files, encoder))
    audit_anchors.drop(database, settings.data_dir / audit_anchors.NAME)
    with transaction(database.engine) as session:
        recover_interrupted(session)
    on_disk = settings.data_dir / snapshots.FOLDER
    milvus = open_milvus(stack, settings)
    kept = on_disk if settings.index_snapshot_seconds and milvus is None else None
    if kept is None and on_disk.exists():
        shutil.rmtree(on_disk)  # nobody would remove from it what is erased from here on
    spec = settings.index if milvus is None else "flat"
    replica = Replica(database, encoder, spec, kept, settings.min_free_bytes, settings.data_dir, milvus)
    replica.load()
    replica.start_following(settings.poll_seconds, settings.index_check_seconds, settings.index_snapshot_seconds)
    stack.callback(replica.stop)
    succession = Succession(database, replica, lambda id: batching(files.load(id)))
    succession.start(settings.poll_seconds)
    stack.callback(succession.stop)
    store = ImageStore(settings.data_dir / "images")
    store.remove_leftovers()
    eraser = Eraser(database, store, settings.data_dir / journal.NAME, replica)
    eraser.replay()  # before anything is served: the database may have been restored from an old backup
    eraser.resume()
    sweeper = Sweeper(eraser, settings)
    sweeper.start()
    stack.callback(sweeper.stop)
    intake = IntakeQueue(database, store, settings, metrics.ingested)
    intake.start()
    stack.callback(intake.stop)
    access = Access(database, settings)
    admission = Admission(settings.search_slots, settings.search_queue, settings.request_deadline_seconds)
    parts = (settings, database, store, replica, succession, files, intake, eraser, access)
    context = Context(*parts, metrics=metrics, admission=admission)
    stack.enter_context(metrics.watch(context))
    return context


def open_milvus(stack: ExitStack, settings: ServiceSettings) -> Milvus | None:
    """The Milvus that holds the index, if the settings say so. Raises InvalidSettings, IndexUnavailable."""
    if settings.index != "milvus":
        return None
    from indexer.milvus import connect  # whose client takes a second to import

    milvus = connect(settings)
    stack.callback(milvus.close)
    return milvus


def refuse_unknown_parameters(request: Request) -> None:
    """A mistyped query parameter must fail, not be ignored; a key in the address must not even be tried."""
    known = {parameter.alias for parameter in request.scope["route"].dependant.query_params}
    for name in request.query_params:
        if name not in known:
            if name.lower() in KEY_PARAMETERS:
                raise Refusal(
                    "key_in_url",
                    "A key never goes into the address, where logs and browsers keep it. Send it as "
                    "`Authorization: Bearer ...`, and revoke this one: somebody may have read it.",
                    name,
                )
            accepted = f"accepted are {', '.join(sorted(known))}" if known else "this call has none"
            raise Refusal("invalid_request", f"There is no parameter {name!r} here; {accepted}.", name)


def index() -> Response:
    page = PAGE / "index.html"
    return FileResponse(page) if page.exists() else PlainTextResponse(NOT_BUILT, 503)
