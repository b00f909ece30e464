/** The shapes of the API by their own names; all of them come from docs/openapi.json. */

import type { components } from "./openapi";

type Schemas = components["schemas"];

export type Session = Schemas["SessionResponse"];
export type Permission = Session["permissions"][number];
export type Role = Session["roles"][number];
export type Problem = Schemas["Problem"];

export type SearchRequest = Schemas["SearchRequest"];
export type SearchResponse = Schemas["SearchResponse"];
export type SearchPage = Schemas["SearchPage"];
export type Result = Schemas["Result"];
export type Hit = Schemas["Hit"];
export type Band = NonNullable<Hit["band"]>;
export type ResultImage = Schemas["ResultImage"];
export type Filter = Schemas["Filter"];
export type Facets = Schemas["FacetResponse"];
export type Explanation = Schemas["ExplanationResponse"];
export type SavedSearch = Schemas["SavedSearchResponse"];
export type SavedSearches = Schemas["SavedSearchList"];

export type Image = Schemas["ImageResponse"];
export type Camera = Schemas["CameraResponse"];
export type Cameras = Schemas["CameraList"];

export type Ingestion = Schemas["IngestionResponse"];
export type Progress = Schemas["IngestionProgress"];
export type Item = Schemas["IngestionItem"];
export type Items = Schemas["IngestionItems"];

export type Case = Schemas["CaseResponse"];
export type CaseDetail = Schemas["CaseDetail"];
export type CaseList = Schemas["CaseList"];
export type CaseItem = Schemas["ItemResponse"];
export type CaseItems = Schemas["ItemList"];
export type Notes = Schemas["NoteList"];
export type Verdict = Schemas["VerdictResponse"];
export type Word = Verdict["verdict"];
export type CaseExport = Schemas["ExportResponse"];

export type Readiness = Schemas["Readiness"];
export type Version = Schemas["Version"];
export type Checkpoint = Schemas["CheckpointResponse"];
export type CheckpointDetail = Schemas["CheckpointDetail"];
export type Checkpoints = Schemas["CheckpointList"];
export type GateReport = Schemas["GateReport"];

export type AuditEvent = Schemas["AuditEvent"];
export type AuditEvents = Schemas["AuditEvents"];
export type Verification = Schemas["AuditVerification"];

export type User = Schemas["UserResponse"];
export type Users = Schemas["UserList"];
export type Key = Schemas["KeyResponse"];
export type NewKey = Schemas["NewKeyResponse"];
export type Keys = Schemas["KeyList"];
export type Neighbours = Schemas["Neighbours"];
