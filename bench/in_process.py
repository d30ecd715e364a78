"""The service without HTTP: the use cases on a store of one's own, wired as `app/main.py` wires them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial

from app.adapters.images import PictureDecoder, decode_crop, encode_crop, resize
from app.adapters.index_faiss import FaissIndex
from app.adapters.model_set import LoadedModelSet, read_model_set
from app.adapters.networks import OnnxEmbedder
from app.domain.representatives import fit_class, no_synthesis
from app.service.collection import Collection
from app.service.embed import CROP_SIDE_PX, CropEmbedder, PictureCodec
from app.service.enrol import Enrol
from app.service.follow import Galleries
from app.service.pools import Pools
from app.service.ports import Store
from app.settings import read_settings

CODEC = PictureCodec(
    decode=PictureDecoder(max_pixels=50_000_000),
    encode_crop=partial(encode_crop, max_side_px=CROP_SIDE_PX),
    decode_crop=decode_crop,
    resize=resize,
)


@cache
def models() -> tuple[LoadedModelSet, OnnxEmbedder]:
    loaded = read_model_set(read_settings().models_dir)
    return loaded, OnnxEmbedder(loaded.embedding_network)


@dataclass(frozen=True)
class InProcess:
    collection: Collection
    galleries: Galleries
    enrol: Enrol


def in_process(store: Store) -> InProcess:
    loaded, embedder = models()
    model_set = loaded.model_set
    galleries = Galleries(
        store,
        make_index=FaissIndex,
        networks=model_set.provenance.networks,
        in_background=ThreadPoolExecutor(1).submit,
    )
    galleries.start()
    pools = Pools(decode_workers=1, inference_workers=1)
    collection = Collection(store=store, galleries=galleries, pools=pools)
    enrol = Enrol(
        collection=collection,
        pools=pools,
        codec=CODEC,
        crop_embedder=CropEmbedder(codec=CODEC, embedder=embedder, view_shares=model_set.view_shares),
        fit=partial(fit_class, model_set=model_set, synthesize=no_synthesis),
        limits=model_set.calibration.warnings,
    )
    return InProcess(collection, galleries, enrol)
