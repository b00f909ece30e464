/** Accounts: people and what they may do, keys for machines. */

import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { call, sentence } from "../api/client";
import { renew } from "../api/renew";
import type { Key, Keys, NewKey, Role, User, Users } from "../api/types";
import { shortTime } from "../lib/format";
import { Dialog } from "../parts/Dialog";
import { Icon } from "../parts/Icon";
import { Page } from "../parts/Page";
import { Failed, Loading, Notice } from "../parts/states";
import { useHere } from "../session";
import { usePreferences } from "../settings";

const ROLES: readonly [Role, string][] = [
  ["operator", "searches, gives verdicts"],
  ["investigator", "as an operator; cases and exports"],
  ["ingest", "adds images"],
  ["auditor", "reads the audit, sees no images"],
  ["admin", "accounts, cameras, checkpoints, erasing; sees no images"],
];

export default function AccountsPage() {
  return (
    <Page title="Accounts" about="Who may do what, and whose images exist for them.">
      <People />
      <KeysOf />
    </Page>
  );
}

function Scope({ cameras }: { cameras: readonly string[] | null }) {
  const { cameraName } = useHere();
  return <>{cameras === null ? "all" : cameras.map(cameraName).join(", ")}</>;
}

function People() {
  const { zone } = usePreferences();
  const [editing, setEditing] = useState<User | "new" | null>(null);
  const list = useQuery({ queryKey: ["users"], queryFn: () => call<Users>("/users") });
  return (
    <section aria-label="People">
      <div className="row wrap spread">
        <h2>People</h2>
        <button type="button" className="button" onClick={() => setEditing("new")}>
          <Icon name="plus" />
          Add somebody
        </button>
      </div>
      {list.isError && <Failed error={list.error} retry={() => void list.refetch()} />}
      {list.isLoading && <Loading what="the people" />}
      {list.data?.users.length === 0 && <p className="muted small">Nobody yet.</p>}
      {list.data && list.data.users.length > 0 && (
        <div className="scrolled">
          <table>
            <thead>
              <tr>
                <th>Name</th>
                <th>Roles</th>
                <th>Cameras</th>
                <th>Since</th>
                <th>
                  <span className="unseen">Change</span>
                </th>
              </tr>
            </thead>
            <tbody>
              {list.data.users.map((user) => (
                <tr key={user.id}>
                  <td>
                    {user.name} {user.disabled_at && <span className="tag bad">disabled</span>}
                  </td>
                  <td>{user.roles.join(", ")}</td>
                  <td>
                    <Scope cameras={user.cameras} />
                  </td>
                  <td className="figures">{shortTime(user.created_at, zone)}</td>
                  <td>
                    <button type="button" className="button quiet" onClick={() => setEditing(user)} aria-label={`Change ${user.name}`}>
                      Change
                    </button>
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      {editing && <EditUser user={editing === "new" ? null : editing} onClose={() => setEditing(null)} />}
    </section>
  );
}

/** Roles and cameras, for a person or a key. */
function Rights({ roles, cameras }: { roles: readonly Role[]; cameras: readonly string[] | null }) {
  const { cameras: known } = useHere();
  const [limited, setLimited] = useState(cameras !== null);
  return (
    <>
      <fieldset className="field">
        <legend className="small">Roles</legend>
        {ROLES.map(([role, meaning]) => (
          <label className="check" key={role}>
            <input type="checkbox" name="roles" value={role} defaultChecked={roles.includes(role)} />
            <span>
              {role} <span className="muted small">{meaning}</span>
            </span>
          </label>
        ))}
      </fieldset>
      <fieldset className="field">
        <legend className="small">Cameras</legend>
        <label className="check">
          <input type="checkbox" checked={!limited} onChange={(event) => setLimited(!event.target.checked)} />
          All cameras
        </label>
        {limited && (
          <div className="choices">
            {known.map(({ id, name }) => (
              <label className="check" key={id}>
                <input type="checkbox" name="cameras" value={id} defaultChecked={cameras?.includes(id) ?? false} />
                {name ?? id}
              </label>
            ))}
            <input type="hidden" name="limited" value="yes" />
          </div>
        )}
      </fieldset>
    </>
  );
}

function rightsOf(form: FormData) {
  const cameras = form.get("limited") ? form.getAll("cameras").map(String) : null;
  return { roles: form.getAll("roles").map(String), cameras };
}

function EditUser({ user, onClose }: { user: User | null; onClose: () => void }) {
  const queries = useQueryClient();
  const settled = { onSuccess: onClose, onSettled: () => renew(queries, ["users"]) };
  const save = useMutation({
    mutationFn: (form: FormData) => {
      const password = String(form.get("password"));
      if (!user) return call("/users", { method: "POST", body: { name: String(form.get("name")), password, ...rightsOf(form) } });
      return call(`/users/${user.id}`, { method: "PATCH", body: { ...rightsOf(form), ...(password && { password }) } });
    },
    ...settled,
  });
  const disable = useMutation({
    mutationFn: (disabled: boolean) => call(`/users/${user?.id}`, { method: "PATCH", body: { disabled } }),
    ...settled,
  });
  const failed = save.error ?? disable.error;
  return (
    <Dialog title={user ? user.name : "A new account"} onClose={onClose}>
      <form
        className="stack"
        autoComplete="off"
        onSubmit={(event) => {
          event.preventDefault();
          save.mutate(new FormData(event.currentTarget));
        }}
      >
        {!user && (
          <label className="field">
            <span>Name</span>
            <input name="name" required maxLength={100} autoFocus autoComplete="off" />
          </label>
        )}
        <label className="field">
          <span>{user ? "New password, if it is to change" : "Password, 12 characters or more"}</span>
          <input name="password" type="password" required={!user} minLength={12} maxLength={200} autoComplete="new-password" />
        </label>
        <Rights roles={user?.roles ?? ["operator"]} cameras={user?.cameras ?? null} />
        {failed && <Notice alert>{sentence(failed)}</Notice>}
        <div className="row">
          <button type="submit" className="button primary" disabled={save.isPending}>
            {user ? "Save" : "Create"}
          </button>
          <button type="button" className="button" onClick={onClose}>
            Cancel
          </button>
          <span className="grow" />
          {user && (
            <button type="button" className="button quiet danger" disabled={disable.isPending} onClick={() => disable.mutate(user.disabled_at === null)}>
              {user.disabled_at === null ? "Disable" : "Enable"}
            </button>
          )}
        </div>
      </form>
    </Dialog>
  );
}

function KeysOf() {
  const { zone } = usePreferences();
  const queries = useQueryClient();
  const [creating, setCreating] = useState(false);
  const list = useQuery({ queryKey: ["api-keys"], queryFn: () => call<Keys>("/api-keys") });
  const revoke = useMutation({
    mutationFn: (key: Key) => call(`/api-keys/${key.id}`, { method: "DELETE" }),
    onSettled: () => renew(queries, ["api-keys"]),
  });
  return (
    <section aria-label="Keys">
      <div className="row wrap spread">
        <h2>Keys for machines</h2>
        <button type="button" className="button" onClick={() => setCreating(true)}>
          <Icon name="plus" />
          Make a key
        </button>
      </div>
      {list.isError && <Failed error={list.error} retry={() => void list.refetch()} />}
      {revoke.isError && <Notice alert>{sentence(revoke.error)}</Notice>}
      {list.data?.api_keys.length === 0 && <p className="muted small">None.</p>}
      {list.data && list.data.api_keys.length > 0 && (
        <div className="scrolled">
          <table>
            <thead>
              <tr>
                <th>Name</th>
                <th>Begins with</th>
                <th>Roles</th>
                <th>Cameras</th>
                <th>Good until</th>
                <th>Last used</th>
                <th>
                  <span className="unseen">Revoke</span>
                </th>
              </tr>
            </thead>
            <tbody>
              {list.data.api_keys.map((key) => (
                <tr key={key.id}>
                  <td>{key.name}</td>
                  <td className="code">psk_{key.lookup}</td>
                  <td>{key.roles.join(", ")}</td>
                  <td>
                    <Scope cameras={key.cameras} />
                  </td>
                  <td className="figures">{shortTime(key.expires_at, zone)}</td>
                  <td className="figures">{key.last_used_at ? shortTime(key.last_used_at, zone) : "never"}</td>
                  <td>
                    {key.revoked_at ? (
                      <span className="tag bad">revoked</span>
                    ) : (
                      <button type="button" className="button quiet danger" onClick={() => revoke.mutate(key)} aria-label={`Revoke ${key.name}`}>
                        Revoke
                      </button>
                    )}
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      {creating && <MakeKey onClose={() => setCreating(false)} />}
    </section>
  );
}

function MakeKey({ onClose }: { onClose: () => void }) {
  const queries = useQueryClient();
  const make = useMutation({
    mutationFn: (form: FormData) => {
      const days = Number(form.get("days"));
      const expires_at = new Date(Date.now() + days * 86_400_000).toISOString();
      return call<NewKey>("/api-keys", { method: "POST", body: { name: String(form.get("name")), expires_at, ...rightsOf(form) } });
    },
    onSettled: () => renew(queries, ["api-keys"]),
  });
  return (
    <Dialog title="A key for a machine" onClose={onClose}>
      {make.data ? (
        <>
          <p>This is the key. It is shown now and never again.</p>
          <code className="secret">{make.data.key}</code>
          <footer>
            <button type="button" className="button primary" onClick={onClose}>
              I have it
            </button>
          </footer>
        </>
      ) : (
        <form
          className="stack"
          autoComplete="off"
          onSubmit={(event) => {
            event.preventDefault();
            make.mutate(new FormData(event.currentTarget));
          }}
        >
          <label className="field">
            <span>Name</span>
            <input name="name" required maxLength={255} autoFocus autoComplete="off" placeholder="What it is for" />
          </label>
          <label className="field">
            <span>Good for, in days</span>
            <input name="days" type="number" min={1} max={366} defaultValue={90} required />
          </label>
          <Rights roles={["ingest"]} cameras={null} />
          {make.isError && <Notice alert>{sentence(make.error)}</Notice>}
          <div className="row">
            <button type="submit" className="button primary" disabled={make.isPending}>
              Make the key
            </button>
            <button type="button" className="button" onClick={onClose}>
              Cancel
            </button>
          </div>
        </form>
      )}
    </Dialog>
  );
}
