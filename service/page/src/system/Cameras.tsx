/** Cameras and their sites: add, rename, remove. */

import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { call, sentence } from "../api/client";
import { renew } from "../api/renew";
import type { Camera } from "../api/types";
import { number } from "../lib/format";
import { Dialog } from "../parts/Dialog";
import { Icon } from "../parts/Icon";
import { Notice } from "../parts/states";
import { useHere } from "../session";

export function CamerasOf() {
  const { cameras } = useHere();
  const [editing, setEditing] = useState<Camera | "new" | null>(null);
  const sorted = [...cameras].sort((a, b) => (a.site ?? "").localeCompare(b.site ?? "") || a.id.localeCompare(b.id));
  return (
    <section aria-label="Cameras">
      <div className="row wrap spread">
        <h2>Cameras</h2>
        <button type="button" className="button" onClick={() => setEditing("new")}>
          <Icon name="plus" />
          Add a camera
        </button>
      </div>
      {sorted.length === 0 ? (
        <p className="muted small">None yet. Images that come with unknown cameras can bring them along.</p>
      ) : (
        <div className="scrolled">
          <table>
            <thead>
              <tr>
                <th>Id</th>
                <th>Name</th>
                <th>Site</th>
                <th>Images</th>
                <th>
                  <span className="unseen">Change</span>
                </th>
              </tr>
            </thead>
            <tbody>
              {sorted.map((camera) => (
                <tr key={camera.id}>
                  <td className="code">{camera.id}</td>
                  <td>{camera.name}</td>
                  <td>{camera.site}</td>
                  <td className="figures">{number(camera.images)}</td>
                  <td>
                    <button type="button" className="button quiet" onClick={() => setEditing(camera)} aria-label={`Change ${camera.id}`}>
                      Change
                    </button>
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      {editing && <Edit camera={editing === "new" ? null : editing} onClose={() => setEditing(null)} />}
    </section>
  );
}

function Edit({ camera, onClose }: { camera: Camera | null; onClose: () => void }) {
  const queries = useQueryClient();
  const settled = { onSuccess: onClose, onSettled: () => renew(queries, ["cameras"]) };
  const path = camera ? `/cameras/${encodeURIComponent(camera.id)}` : "/cameras";
  const save = useMutation({
    mutationFn: (form: FormData) => {
      const text = (name: string) => String(form.get(name) ?? "").trim() || null;
      const body = { name: text("name"), site: text("site") };
      return camera ? call(path, { method: "PATCH", body }) : call(path, { method: "POST", body: { id: text("id"), ...body } });
    },
    ...settled,
  });
  const remove = useMutation({ mutationFn: () => call(path, { method: "DELETE" }), ...settled });
  const failed = save.error ?? remove.error;
  return (
    <Dialog title={camera ? `Camera ${camera.id}` : "A new camera"} onClose={onClose}>
      <form
        className="stack"
        onSubmit={(event) => {
          event.preventDefault();
          save.mutate(new FormData(event.currentTarget));
        }}
      >
        {!camera && (
          <label className="field">
            <span>Id, as images name it</span>
            <input name="id" required maxLength={100} pattern="[^\s\/]+" autoFocus autoComplete="off" />
          </label>
        )}
        <label className="field">
          <span>Name</span>
          <input name="name" maxLength={255} defaultValue={camera?.name ?? ""} autoComplete="off" />
        </label>
        <label className="field">
          <span>Site</span>
          <input name="site" maxLength={255} defaultValue={camera?.site ?? ""} autoComplete="off" />
        </label>
        {failed && <Notice alert>{sentence(failed)}</Notice>}
        <div className="row">
          <button type="submit" className="button primary" disabled={save.isPending}>
            Save
          </button>
          <button type="button" className="button" onClick={onClose}>
            Cancel
          </button>
          <span className="grow" />
          {camera && (
            <button type="button" className="button quiet danger" onClick={() => remove.mutate()} disabled={remove.isPending}>
              Remove
            </button>
          )}
        </div>
      </form>
    </Dialog>
  );
}
