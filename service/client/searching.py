"""Searches, what is done with their results, facets and saved searches."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from service.case_schemas import VerdictRequest, VerdictResponse
from service.client.connection import Connection, Id, Json, at, given, plain
from service.client.images import part
from service.search_schemas import (
    ExplanationResponse,
    FacetRequest,
    FacetResponse,
    PurposeRequest,
    RefinementRequest,
    Result,
    SavedSearchChange,
    SavedSearchList,
    SavedSearchResponse,
    SearchPage,
    SearchRequest,
    SearchResponse,
)


class Searching(Connection):
    def search(self, request: SearchRequest | Json, image: Path | bytes | None = None) -> SearchResponse:
        """Run one search; `image` is a picture of your own to search by."""
        if image is None:
            return self._ask(SearchResponse, "POST", at("searches"), request)
        files = {"request": (None, json.dumps(plain(request)), "application/json"), "image": part(image)}
        return self._ask(SearchResponse, "POST", at("searches"), files=files)

    def get_search(self, search_id: Id) -> SearchResponse:
        """A search again, with the ranking it had."""
        return self._ask(SearchResponse, "GET", at("searches", search_id))

    def results(self, search: SearchResponse, limit: int | None = None) -> Iterator[Result]:
        """Every result of a search: those of its answer, then page by page, `limit` a page."""
        yield from search.results
        cursor = search.next_cursor
        while cursor is not None:
            parameters = given(cursor=cursor, limit=limit)
            page = self._ask(SearchPage, "GET", at("searches", search.id, "results"), params=parameters)
            yield from page.results
            cursor = page.next_cursor

    def refine(self, search_id: Id, request: RefinementRequest | Json) -> SearchResponse:
        """A new search: the request names positive and negative images, another text, or some of these."""
        return self._ask(SearchResponse, "POST", at("searches", search_id, "refinements"), request)

    def explain(self, search_id: Id, image_id: Id) -> ExplanationResponse:
        """Which phrases met which part of the body; takes seconds. Not evidence."""
        path = at("searches", search_id, "results", image_id, "explanation")
        return self._ask(ExplanationResponse, "GET", path, timeout=None)

    def judge_result(self, search_id: Id, image_id: Id, request: VerdictRequest | Json) -> VerdictResponse:
        """Say whether a result is the person. Saying it again replaces one's verdict."""
        path = at("searches", search_id, "results", image_id, "verdicts")
        return self._ask(VerdictResponse, "POST", path, request)

    def facets(self, request: FacetRequest | Json) -> FacetResponse:
        """Counts of what a filter could be made of."""
        return self._ask(FacetResponse, "POST", at("images", "facets"), request, retry=True)  # it only counts

    def save_search(self, name: str, request: SearchRequest | Json) -> SavedSearchResponse:
        return self._ask(SavedSearchResponse, "POST", at("saved-searches"), {"name": name, "request": request})

    def saved_searches(self) -> list[SavedSearchResponse]:
        return self._ask(SavedSearchList, "GET", at("saved-searches")).saved_searches

    def saved_search(self, saved_search_id: Id) -> SavedSearchResponse:
        return self._ask(SavedSearchResponse, "GET", at("saved-searches", saved_search_id))

    def change_saved_search(self, saved_search_id: Id, request: SavedSearchChange | Json) -> SavedSearchResponse:
        return self._ask(SavedSearchResponse, "PATCH", at("saved-searches", saved_search_id), request)

    def delete_saved_search(self, saved_search_id: Id) -> None:
        self.request("DELETE", at("saved-searches", saved_search_id))

    def run_saved_search(self, saved_search_id: Id, purpose: PurposeRequest | Json | None = None) -> SearchResponse:
        return self._ask(SearchResponse, "POST", at("saved-searches", saved_search_id, "run"), given(purpose=purpose))
