"""Request and response bodies of sessions, users, API keys and set-up; strict as those of schemas.py."""

from __future__ import annotations

import unicodedata
from datetime import datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from service.principals import Permission, Role
from service.schemas import EXAMPLE_ID, CameraId, Name, RequestBody, ResponseBody, Time, optional

PASSWORD_MIN = 12
PASSWORD_MAX = 200


def normal_name(name: str) -> str:
    """NFKC and without spaces around, so that nobody can have a name that looks like another's."""
    name = unicodedata.normalize("NFKC", name).strip()
    if not name:
        raise ValueError("The name is empty.")
    return name


UserName = Annotated[
    str, StringConstraints(min_length=1, max_length=100, pattern=r"^[^\x00-\x1F\x7F]+$"), AfterValidator(normal_name)
]
Password = Annotated[str, StringConstraints(min_length=PASSWORD_MIN, max_length=PASSWORD_MAX)]
Typed = Annotated[str, StringConstraints(min_length=1, max_length=PASSWORD_MAX)]  # right or wrong, of any length
Roles = Annotated[list[Role], Field(min_length=1, max_length=5)]
Cameras = Annotated[
    list[CameraId] | None,
    Field(min_length=1, max_length=1000, description="Whose images exist for them; null: those of all cameras"),
]


# ------------------------------------------------------------------------------------------------------------ sessions


class SignInRequest(RequestBody):
    name: UserName
    password: Typed


class PasswordRequest(RequestBody):
    current_password: Typed
    new_password: Password


class SessionResponse(ResponseBody):
    id: UUID | None = Field(description="Of the user or the API key; null where the service is open")
    name: str
    kind: Literal["user", "api_key", "open"]
    roles: list[Role]
    permissions: list[Permission] = Field(description="What the roles and the scope allow together")
    cameras: list[str] | None = Field(description="Whose images exist for the caller; null: those of all cameras")
    csrf_token: str | None = Field(description="To be sent as X-CSRF-Token with every change; null without a session")


class SetupRequest(RequestBody):
    token: Annotated[str, StringConstraints(min_length=1, max_length=200)] = Field(
        description="What follows #setup= in the link that `serve` printed"
    )
    name: UserName
    password: Password


# --------------------------------------------------------------------------------------------------------------- users


class UserRequest(RequestBody):
    name: UserName
    password: Password
    roles: Roles
    cameras: Cameras  # required, so that nobody gives all cameras by leaving it out


class UserChange(RequestBody):
    """What is left out stays as it is."""

    roles: Roles = optional()
    cameras: Cameras = None
    disabled: bool = optional()
    password: Password = optional()

    @model_validator(mode="after")
    def something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("There is nothing to change: give roles, cameras, disabled or password.")
        return self


class UserResponse(ResponseBody):
    id: UUID
    name: str
    roles: list[Role]
    cameras: list[str] | None
    created_at: datetime
    disabled_at: datetime | None


class UserList(ResponseBody):
    users: list[UserResponse]


# ------------------------------------------------------------------------------------------------------------ API keys


class KeyRequest(RequestBody):
    name: Name
    roles: Roles
    cameras: Cameras
    expires_at: Time


class KeyResponse(ResponseBody):
    id: UUID
    lookup: str = Field(description="The public part of the key: psk_LOOKUP_...")
    name: str
    roles: list[Role]
    cameras: list[str] | None
    created_by: str | None = Field(description="The user who answers for it; null: made on the service's machine")
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None
    last_used_at: datetime | None = Field(description="To the minute")


class NewKeyResponse(KeyResponse):
    key: str = Field(description="Shown this once and never again")


class KeyList(ResponseBody):
    api_keys: list[KeyResponse]


# ------------------------------------------------------------------------------------------------------------ examples

A_SIGN_IN: dict[str, Any] = {"name": "kim", "password": "plum-tram-orbit-7"}
A_PASSWORD = {"current_password": "plum-tram-orbit-7", "new_password": "quiet-anvil-lantern-3"}
A_SETUP = {"token": "(from the link)", "name": "kim", "password": "plum-tram-orbit-7"}
A_USER_REQUEST = {
    "name": "robin",
    "password": "plum-tram-orbit-7",
    "roles": ["operator"],
    "cameras": ["station-north"],
}
A_USER: dict[str, Any] = {
    "id": EXAMPLE_ID,
    "name": "robin",
    "roles": ["operator"],
    "cameras": ["station-north"],
    "created_at": "2026-09-02T08:00:00Z",
    "disabled_at": None,
}
A_SESSION: dict[str, Any] = {
    "id": EXAMPLE_ID,
    "name": "robin",
    "kind": "user",
    "roles": ["operator"],
    "permissions": ["judge", "search", "view"],
    "cameras": ["station-north"],
    "csrf_token": "c4c9a70d3b0e4a52a6ce1d7b7c0d9f1e",
}
A_KEY_REQUEST = {
    "name": "intake north",
    "roles": ["ingest"],
    "cameras": ["station-north"],
    "expires_at": "2027-09-01T00:00:00Z",
}
A_KEY: dict[str, Any] = {
    "id": EXAMPLE_ID,
    "lookup": "5d41402abc4b",
    **A_KEY_REQUEST,
    "created_by": "kim",
    "created_at": "2026-09-02T08:00:00Z",
    "revoked_at": None,
    "last_used_at": None,
}
A_NEW_KEY = {**A_KEY, "key": "psk_5d41402abc4b_…"}
