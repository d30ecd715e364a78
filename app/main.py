"""Puts the service together: settings -> adapters -> use cases -> routes. The one file that knows every layer: the first to open.

The port listens at once. What takes time (the networks, the store, fitting its classes to another model set) happens behind it,
and `/readyz` says how far that is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from fastapi import FastAPI
from numpy.typing import NDArray

from app import metrics
from app.adapters.images import PictureDecoder, decode_crop, encode_crop, resize
from app.adapters.index_faiss import FaissIndex, FaissPointIndex
from app.adapters.local_features import SiftPoints
from app.adapters.model_set import read_model_set
from app.adapters.networks import open_detector, open_embedder, open_synthesizer
from app.adapters.rates import Rates
from app.adapters.store_memory import MemoryStore
from app.adapters.store_redis import RedisStore
from app.adapters.store_sqlite import SqliteStore
from app.adapters.warp import rectify
from app.api import classes, classify, detect, examples, info
from app.api.admission import Admission, AdmissionLimits, AdmissionMiddleware
from app.api.audit import Audit
from app.api.auth import DEFAULT_COLLECTION, CountCall, KeyRing
from app.api.bodies import BodyLimits
from app.api.console import console_router, read_console
from app.api.dependencies import UseCases
from app.api.edge import Edge
from app.api.openapi import install_openapi
from app.api.problems import install_problem_handlers
from app.api.readiness import Readiness
from app.api.schemas import InfoOut, LimitsOut
from app.domain.model_set import ModelSet
from app.domain.prints import CodeBook, Prints
from app.domain.representatives import fit_class
from app.errors import FirstsightError, Starting, StoreAway
from app.logs import logger
from app.service.classes import Classes
from app.service.classify import Classify
from app.service.collection import Collection
from app.service.detect import Detect
from app.service.embed import CROP_SIDE_PX, CropEmbedder, PictureCodec, PlaceEmbedder
from app.service.enrol import Enrol
from app.service.follow import Galleries
from app.service.migrate import Migrate
from app.service.pools import Deadline, Pools
from app.service.ports import Detector, Embedder, PointFinder, Store, Synthesizer
from app.service.replica import Replica
from app.service.spot import Spotter
from app.service.verify import Verifier
from app.settings import Settings

log = logger(__name__)

API_VERSION = "0.1"  # of the description in docs/openapi.json
STORE_AGAIN_S = 1.0  # between looks for a store that is away at the start
PIXELS_PER_MEGAPIXEL = 1_000_000
CONSOLE = Path(__file__).parent / "console"


@dataclass(frozen=True, slots=True)
class Adapters:
    """What reaches outside the process, opened. That each fits its seam is what the type checker proves here."""

    model_set: ModelSet
    embedder: Embedder
    device: str  # that the networks run on
    find_points: PointFinder
    words: NDArray[np.uint8]  # (w, 128) code book of the points
    synthesize: Synthesizer
    detector: Detector | None
    codec: PictureCodec
    store: Store  # of the default collection
    open_store: Callable[[str], Store]  # of another collection, by its name


def open_adapters(settings: Settings) -> Adapters:
    store = open_store(settings.store, allow_weak_redis=settings.allow_weak_redis)
    try:
        return open_networks(settings, store)
    except BaseException:
        store.close()
        raise


def open_networks(settings: Settings, store: Store) -> Adapters:
    loaded = read_model_set(settings.models_dir, synthesis=settings.synthesis == "on", detector=settings.detector == "on")
    # One thread a picture, and as many pictures at once as there are threads: nothing else uses two cores as fully.
    embedder = open_embedder(loaded, threads=1, device=settings.device)
    return Adapters(
        model_set=loaded.model_set,
        embedder=embedder,
        device=embedder.device,
        find_points=SiftPoints(loaded.points),
        words=loaded.points.words,
        synthesize=open_synthesizer(loaded),
        detector=open_detector(loaded, threads=1, device=settings.device),
        codec=picture_codec(settings),
        store=store,
        open_store=partial(open_store, settings.store, allow_weak_redis=settings.allow_weak_redis),
    )


def spotter_of(detector: Detector | None, model_set: ModelSet) -> Spotter | None:
    if detector is None or model_set.detector is None:
        return None
    return Spotter(detector=detector, settings=model_set.detector)


def picture_codec(settings: Settings) -> PictureCodec:
    return PictureCodec(
        decode=PictureDecoder(max_pixels=int(settings.max_image_megapixels * PIXELS_PER_MEGAPIXEL)),
        encode_crop=partial(encode_crop, max_side_px=CROP_SIDE_PX),
        decode_crop=decode_crop,
        resize=resize,
    )


def open_store(address: str, collection: str = DEFAULT_COLLECTION, *, allow_weak_redis: bool = False) -> Store:
    kind, _, path = address.partition("://")
    match kind:
        case "memory":
            return MemoryStore(epoch=int(time.time() * 1000))
        case "sqlite":
            return SqliteStore(file_of(Path(path.removeprefix("/")), collection))
        case _:
            return RedisStore(address, collection=collection, may_be_weak=allow_weak_redis)


def file_of(path: Path, collection: str) -> Path:
    """Each collection has a file of its own, beside that of the default one."""
    return path if collection == DEFAULT_COLLECTION else path.with_stem(f"{path.stem}-{collection}")


def is_shared(address: str) -> bool:
    """Whether other processes write to the store."""
    return not address.startswith(("memory:", "sqlite:"))


class OpenCollection:
    """One collection with its store: what is served of it, and the use cases on it."""

    def __init__(
        self, settings: Settings, adapters: Adapters, store: Store, pools: Pools, background: ThreadPoolExecutor
    ) -> None:
        self._store = store
        self._pools = pools
        model_set, codec = adapters.model_set, adapters.codec
        self._galleries = galleries = Galleries(
            store,
            make_index=FaissIndex,
            networks=model_set.provenance.networks,
            prints=Prints(
                provenance=model_set.provenance.points,
                code_book=CodeBook(adapters.words),
                make_index=partial(FaissPointIndex, words=len(adapters.words)),
            ),
            detector=model_set.provenance.detector,
            in_background=background.submit,
        )
        self._replica = Replica(galleries, every_s=settings.follow_every_s) if is_shared(settings.store) else None
        self.collection = collection = Collection(
            store=store,
            galleries=galleries,
            pools=pools,
            keep_crops=settings.store_images == "crop",
            stale_s=lambda: self._replica.stale_s if self._replica else None,
        )
        crop_embedder = CropEmbedder(
            codec=codec,
            embedder=adapters.embedder,
            find_points=adapters.find_points,
            detector=adapters.detector,
            view_shares=model_set.view_shares,
        )
        fit = partial(fit_class, model_set=model_set, synthesize=adapters.synthesize)
        self._migrate = Migrate(store=store, pools=pools, crop_embedder=crop_embedder, fit=fit, provenance=model_set.provenance)
        verifier = Verifier(
            find_points=adapters.find_points,
            embed_places=PlaceEmbedder(rectify=rectify, embedder=adapters.embedder),
            model_set=model_set,
            mode=settings.verify,
        )
        self.use_cases = UseCases(
            collection=collection,
            enrol=Enrol(
                collection=collection,
                pools=pools,
                codec=codec,
                crop_embedder=crop_embedder,
                fit=fit,
                verifier=verifier,
                limits=model_set.calibration.warnings,
                max_examples=settings.max_examples_per_class,
            ),
            classify=Classify(
                collection=collection,
                pools=pools,
                codec=codec,
                embedder=adapters.embedder,
                verifier=verifier,
                model_set=model_set,
            ),
            detect=Detect(
                collection=collection,
                pools=pools,
                codec=codec,
                embedder=adapters.embedder,
                find_points=adapters.find_points,
                spotter=spotter_of(adapters.detector, model_set),
                verifier=verifier,
                verifies=settings.verify != "off",
                model_set=model_set,
            ),
            classes=Classes(collection=collection, pools=pools, fit=fit),
        )

    async def start(self, wait_for: Callable[[str], None]) -> None:
        await self._migrate(lambda done, total: wait_for(f"the new model set: {done} of {total} classes are fitted to it"))
        wait_for("the index")
        await self._pools.store(self._galleries.start, deadline=Deadline.never())
        if self._replica:
            self._replica.start()

    @property
    def refused(self) -> str | None:
        """Why the store may not be written to, though it answers."""
        return self._replica.refused if self._replica else None

    def stop_following(self) -> None:
        if self._replica:
            self._replica.close()

    def close(self) -> None:
        """Once nothing runs on it any more."""
        self._store.close()


class Service:
    """The collections, and what they all run on."""

    def __init__(self, settings: Settings, adapters: Adapters) -> None:
        self._settings = settings
        self._adapters = adapters
        self._version = software_version()
        self._pools = Pools(decode_workers=settings.decode_threads, inference_workers=settings.inference_threads)
        self._background = ThreadPoolExecutor(1, thread_name_prefix="background")
        default = OpenCollection(settings, adapters, adapters.store, self._pools, self._background)
        self._opened = {DEFAULT_COLLECTION: default}
        self._opening: dict[str, asyncio.Task[None]] = {}
        self.use_cases = default.use_cases

    async def start(self, wait_for: Callable[[str], None], *, collections: Iterable[str] = ()) -> None:
        """Makes everything ready to answer, on these collections beside the default one. `wait_for` is told what comes next."""
        await self._opened[DEFAULT_COLLECTION].start(wait_for)
        for name in sorted(set(collections) - {DEFAULT_COLLECTION}):
            wait_for("the collections")
            await self._open(name)
        wait_for("a first picture through the networks")
        await self._pools.infer(self._see_a_first_picture, deadline=Deadline.never())
        metrics.watch_gallery(lambda: [opened.collection.gallery for opened in self._opened.values()])
        metrics.watch_staleness(lambda: max(opened.collection.stale_s() or 0 for opened in self._opened.values()))

    def _see_a_first_picture(self) -> None:
        embedder, detector = self._adapters.embedder, self._adapters.detector
        embedder(np.zeros((1, embedder.side_px, embedder.side_px, 3), np.uint8))
        if detector is not None:
            for side_px in detector.sides_px:
                detector(np.zeros((side_px, side_px, 3), np.uint8), side_px)

    async def use_cases_of(self, collection: str) -> UseCases:
        """Those of a collection. One that a key has just been made for is opened first; its caller is told to come again."""
        opened = self._opened.get(collection)
        if opened is not None:
            return opened.use_cases
        opening = self._opening.get(collection)
        if opening is None or opening.done():
            self._opening[collection] = asyncio.create_task(self._open(collection))
        raise Starting("its collection")

    async def _open(self, name: str) -> None:
        try:
            store = await asyncio.to_thread(self._adapters.open_store, name)
            opened = OpenCollection(self._settings, self._adapters, store, self._pools, self._background)
            await opened.start(lambda what: None)
        except FirstsightError as error:  # the next caller has it tried again
            log.error("a collection could not be opened", collection=name, detail=error.detail)
            return
        self._opened[name] = opened

    def describe(self, use_cases: UseCases) -> InfoOut:
        settings, model_set, gallery = self._settings, self._adapters.model_set, use_cases.collection.gallery
        return InfoOut(
            version=self._version,
            model=model_set.id,
            networks=model_set.provenance.networks,
            calibration=model_set.provenance.calibration,
            store=settings.store.partition(":")[0],
            store_images=settings.store_images,
            device=self._adapters.device,
            classes=len(gallery),
            gallery_version=gallery.version,
            limits=LimitsOut(
                max_body_bytes=settings.max_body_bytes,
                max_json_bytes=settings.max_json_bytes,
                max_image_megapixels=settings.max_image_megapixels,
                max_images_per_request=settings.max_images_per_request,
                max_examples_per_class=settings.max_examples_per_class,
                max_concurrent_requests=settings.max_concurrent_requests,
                request_timeout_s=settings.request_timeout_s,
            ),
        )

    def refused(self) -> str | None:
        """Why a store may not be written to, though it answers; None when all may."""
        return next((f"the store: {opened.refused}" for opened in self._opened.values() if opened.refused), None)

    def close(self) -> None:
        """Waits for what runs, then closes the stores."""
        for opening in self._opening.values():
            opening.cancel()
        for opened in self._opened.values():
            opened.stop_following()
        self._pools.close()
        self._background.shutdown(cancel_futures=True)
        for opened in self._opened.values():
            opened.close()


def create_app(
    settings: Settings,
    *,
    open_adapters: Callable[[Settings], Adapters] = open_adapters,
    on_failed_start: Callable[[], None] = lambda: None,
) -> FastAPI:
    """The ASGI application. InvalidSettings for a key file of no use; `on_failed_start` is called for faults found later."""
    readiness = Readiness()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with ExitStack() as closing:
            app.state.starting = starting = asyncio.create_task(start(app, closing))
            yield
            starting.cancel()
            await asyncio.wait((starting,))

    async def start(app: FastAPI, closing: ExitStack) -> None:
        try:
            readiness.wait_for("the networks and the store")
            service = Service(settings, await opened(settings, open_adapters, readiness.wait_for))
            closing.callback(service.close)
            keys: KeyRing | None = app.state.keys
            await service.start(readiness.wait_for, collections=keys.collections if keys else ())
        except Exception as error:
            # A fault that was foreseen says what to do; any other needs its traceback.
            log.error("start failed", exc_info=not isinstance(error, FirstsightError), detail=str(error))
            on_failed_start()
            return
        app.state.use_cases_of, app.state.describe = service.use_cases_of, service.describe
        readiness.is_ready(unless=service.refused)
        log.info(
            "ready", **service.describe(service.use_cases).model_dump(include={"version", "model", "store", "device", "classes"})
        )

    app = FastAPI(
        title="Firstsight",
        summary="Show it a new brand or product once; from the next request on it is recognised in other pictures.",
        version=API_VERSION,
        docs_url=None,  # FastAPI's page loads its scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,  # operation ids: the handlers' names, not those and the paths
        lifespan=lifespan,
    )
    app.state.readiness = readiness
    app.state.keys = KeyRing(settings.api_keys_file) if settings.api_keys_file else None
    app.state.rate, app.state.count_call = settings.rate_limit, count_call_of(settings)
    app.state.unknown_key_rate = settings.unknown_key_rate
    app.state.body_limits = BodyLimits(images=settings.max_images_per_request, json_bytes=settings.max_json_bytes)
    app.state.request_timeout_s = settings.request_timeout_s
    for routes in (classify, detect, examples, classes, info):
        app.include_router(routes.router)
    app.include_router(console_router(read_console(CONSOLE)))
    install_problem_handlers(app)
    install_openapi(app)
    app.add_middleware(AdmissionMiddleware, admission=Admission(admission_limits(settings)), readiness=readiness)
    app.add_middleware(Edge, audit=Audit(settings.audit_file))  # what is added last is outermost
    return app


async def opened(settings: Settings, open_adapters: Callable[[Settings], Adapters], wait_for: Callable[[str], None]) -> Adapters:
    """The adapters; a store that is away may come back, and is waited for."""
    told = None
    while True:
        try:
            return await asyncio.to_thread(open_adapters, settings)
        except StoreAway as away:
            wait_for(f"the store: {away.detail}")
            if away.detail != told:
                log.warning("the start waits for the store", detail=away.detail)
            told = away.detail
            await asyncio.sleep(STORE_AGAIN_S)


def count_call_of(settings: Settings) -> CountCall:
    return Rates(settings.store if is_shared(settings.store) else None)


def admission_limits(settings: Settings) -> AdmissionLimits:
    return AdmissionLimits(
        pictures=settings.max_concurrent_requests,
        body_bytes=settings.max_body_bytes,
        body_bytes_in_flight=settings.max_body_bytes_in_flight,
        body_timeout_s=settings.body_timeout_s,
        min_body_bytes_per_s=settings.min_body_bytes_per_s,
    )


def software_version() -> str:
    try:
        return version("firstsight")
    except PackageNotFoundError:  # run from its sources, not installed
        return "unknown"
