"""How callbacks and writers meet the documents (public: plug-ins build on it); reading stored runs."""

from bec_bluesky.documents._address import (
    CatalogAddress,
    api_key,
    api_uri,
    external_catalog,
    find_catalog,
    publish_address,
    withdraw_address,
)
from bec_bluesky.documents._callback import Document, Emit, RunCallback, RunSink
from bec_bluesky.documents._catalog import build_catalog_app, catalog_configuration
from bec_bluesky.documents._export import export_run
from bec_bluesky.documents._file_list import FileList, LineFile, present_files
from bec_bluesky.documents._files import read_documents, write_documents
from bec_bluesky.documents._given_up import given_up_runs, leave_given_up
from bec_bluesky.documents._journal import DocumentJournal
from bec_bluesky.documents._lost import is_lost, lost_stop
from bec_bluesky.documents._mender import DocumentMender
from bec_bluesky.documents._older import upgraded
from bec_bluesky.documents._prefix import file_prefix, metadata_word
from bec_bluesky.documents._replay import replay
from bec_bluesky.documents._retrieval import open_catalog
from bec_bluesky.documents._runs import Run, Runs, timestamp
from bec_bluesky.messages.products import AnalysisResult, FileGrowing, FileReady, Point, Product, RunProblem

__all__ = [
    "AnalysisResult",
    "CatalogAddress",
    "Document",
    "DocumentJournal",
    "DocumentMender",
    "Emit",
    "FileGrowing",
    "FileList",
    "FileReady",
    "LineFile",
    "Point",
    "Product",
    "Run",
    "RunCallback",
    "RunProblem",
    "RunSink",
    "Runs",
    "api_key",
    "api_uri",
    "build_catalog_app",
    "catalog_configuration",
    "export_run",
    "external_catalog",
    "file_prefix",
    "find_catalog",
    "given_up_runs",
    "is_lost",
    "leave_given_up",
    "lost_stop",
    "metadata_word",
    "open_catalog",
    "present_files",
    "publish_address",
    "read_documents",
    "replay",
    "timestamp",
    "upgraded",
    "withdraw_address",
    "write_documents",
]
