"""How callbacks and writers meet the documents (public: plug-ins build on it)."""

from bec_bluesky.documents._callback import Document, Emit, RunCallback, RunSink
from bec_bluesky.messages.products import AnalysisResult, FileReady, Point, Product

__all__ = ["AnalysisResult", "Document", "Emit", "FileReady", "Point", "Product", "RunCallback", "RunSink"]
