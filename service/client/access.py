"""Who may come in: sessions, users and API keys."""

from __future__ import annotations

from service.access_schemas import (
    KeyList,
    KeyRequest,
    KeyResponse,
    NewKeyResponse,
    PasswordRequest,
    SessionResponse,
    SetupRequest,
    SignInRequest,
    UserChange,
    UserList,
    UserRequest,
    UserResponse,
)
from service.client.connection import Connection, Id, Json, at, plain

CSRF = "X-CSRF-Token"


class Access(Connection):
    def set_up(self, request: SetupRequest | Json) -> UserResponse:
        """Create the first user, with the token of the link that `serve` printed."""
        return self._ask(UserResponse, "POST", at("setup"), request)

    def sign_in(self, request: SignInRequest | Json) -> SessionResponse:
        """Begin a session; from here on this client acts as that user and no longer shows its API key."""
        session = self._ask(SessionResponse, "POST", at("session"), request)
        self._http.headers.pop("Authorization", None)
        if session.csrf_token is not None:
            self._http.headers[CSRF] = session.csrf_token
        return session

    def session(self) -> SessionResponse:
        """Who one is, by session or API key, and what one may do."""
        return self._ask(SessionResponse, "GET", at("session"))

    def change_password(self, request: PasswordRequest | Json) -> None:
        """Of whoever is signed in. All their other sessions end."""
        self.request("PUT", at("session", "password"), json=plain(request))

    def sign_out(self) -> None:
        self.request("DELETE", at("session"))
        self._http.headers.pop(CSRF, None)

    def users(self) -> list[UserResponse]:
        return self._ask(UserList, "GET", at("users")).users

    def user(self, user_id: Id) -> UserResponse:
        return self._ask(UserResponse, "GET", at("users", user_id))

    def create_user(self, request: UserRequest | Json) -> UserResponse:
        return self._ask(UserResponse, "POST", at("users"), request)

    def change_user(self, user_id: Id, request: UserChange | Json) -> UserResponse:
        """Other roles, cameras or another password, or keep them out or let them in again."""
        return self._ask(UserResponse, "PATCH", at("users", user_id), request)

    def api_keys(self) -> list[KeyResponse]:
        return self._ask(KeyList, "GET", at("api-keys")).api_keys

    def create_api_key(self, request: KeyRequest | Json) -> NewKeyResponse:
        """Make an API key. `key` of the answer is shown this once."""
        return self._ask(NewKeyResponse, "POST", at("api-keys"), request)

    def revoke_api_key(self, key_id: Id) -> None:
        self.request("DELETE", at("api-keys", key_id))
