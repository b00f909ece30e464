"""Cases: what several people collect, note and decide together, and its export."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from service.case_schemas import (
    CaseChange,
    CaseDetail,
    CaseList,
    CaseRequest,
    CaseResponse,
    ExportList,
    ExportRequest,
    ExportResponse,
    ItemList,
    ItemRequest,
    ItemResponse,
    Member,
    MemberList,
    MemberRequest,
    NoteChange,
    NoteList,
    NoteRequest,
    NoteResponse,
    State,
    VerdictRequest,
)
from service.client.connection import Connection, Id, Json, at


class Cases(Connection):
    def create_case(self, request: CaseRequest | Json) -> CaseResponse:
        return self._ask(CaseResponse, "POST", at("cases"), request)

    def cases(self, state: State | None = None, limit: int | None = None) -> Iterator[CaseResponse]:
        """The cases one works on, the newest first; `limit` a page."""
        for page in self._pages(CaseList, at("cases"), "before", state=state, limit=limit):
            yield from page.cases

    def case(self, case_id: Id) -> CaseDetail:
        return self._ask(CaseDetail, "GET", at("cases", case_id))

    def change_case(self, case_id: Id, request: CaseChange | Json) -> CaseResponse:
        """Another title, or close it or open it again."""
        return self._ask(CaseResponse, "PATCH", at("cases", case_id), request)

    def add_member(self, case_id: Id, request: MemberRequest | Json) -> list[Member]:
        """Everybody who works on the case, with the one added."""
        return self._ask(MemberList, "POST", at("cases", case_id, "members"), request).members

    def remove_member(self, case_id: Id, person_id: Id) -> None:
        self.request("DELETE", at("cases", case_id, "members", person_id))

    def add_item(self, case_id: Id, request: ItemRequest | Json) -> ItemResponse:
        """Put a result of a search into a case."""
        return self._ask(ItemResponse, "POST", at("cases", case_id, "items"), request)

    def case_items(self, case_id: Id, limit: int | None = None) -> Iterator[ItemResponse]:
        """Every item of a case; `limit` a page."""
        for page in self._pages(ItemList, at("cases", case_id, "items"), "after", limit=limit):
            yield from page.items

    def case_item(self, case_id: Id, item_id: Id) -> ItemResponse:
        return self._ask(ItemResponse, "GET", at("cases", case_id, "items", item_id))

    def change_item(self, case_id: Id, item_id: Id, request: NoteChange | Json) -> ItemResponse:
        """Another note on an item, or none."""
        return self._ask(ItemResponse, "PATCH", at("cases", case_id, "items", item_id), request)

    def remove_item(self, case_id: Id, item_id: Id) -> None:
        self.request("DELETE", at("cases", case_id, "items", item_id))

    def judge_item(self, case_id: Id, item_id: Id, request: VerdictRequest | Json) -> ItemResponse:
        """Say whether an item is the person. Saying it again replaces one's verdict."""
        return self._ask(ItemResponse, "POST", at("cases", case_id, "items", item_id, "verdicts"), request)

    def add_note(self, case_id: Id, request: NoteRequest | Json) -> NoteResponse:
        return self._ask(NoteResponse, "POST", at("cases", case_id, "notes"), request)

    def notes(self, case_id: Id) -> list[NoteResponse]:
        return self._ask(NoteList, "GET", at("cases", case_id, "notes")).notes

    def export_case(self, case_id: Id, request: ExportRequest | Json | None = None) -> ExportResponse:
        """Put all of a case into a zip, to be fetched with `download_export`."""
        return self._ask(ExportResponse, "POST", at("cases", case_id, "exports"), request or {}, timeout=None)

    def exports(self, case_id: Id) -> list[ExportResponse]:
        """The exports of a case that can be fetched, the newest first."""
        return self._ask(ExportList, "GET", at("cases", case_id, "exports")).exports

    def export(self, case_id: Id, export_id: Id) -> ExportResponse:
        return self._ask(ExportResponse, "GET", at("cases", case_id, "exports", export_id))

    def download_export(self, case_id: Id, export_id: Id, file: BinaryIO) -> None:
        """Write the zip into a file that is open for writing."""
        self._download(at("cases", case_id, "exports", export_id, "content"), file)
