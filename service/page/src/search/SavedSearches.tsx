/** Searches kept under a name: run one, save what is asked now, rename, remove. */

import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { call, sentence } from "../api/client";
import { renew } from "../api/renew";
import type { SavedSearch, SavedSearches as List } from "../api/types";
import { questionOf, requestOf, whyNot } from "../lib/question";
import { Icon } from "../parts/Icon";
import { Popover } from "../parts/Popover";
import { Notice } from "../parts/states";
import { usePreferences } from "../settings";
import { useWork } from "./workspace";

export function SavedSearches() {
  return (
    <Popover
      className="button quiet"
      end
      title="Saved searches"
      label={
        <>
          <Icon name="star" />
          Saved
        </>
      }
    >
      {(close) => <Panel close={close} />}
    </Popover>
  );
}

function Panel({ close }: { close: () => void }) {
  const queries = useQueryClient();
  const { question, run } = useWork();
  const { zone } = usePreferences();
  const [name, setName] = useState("");
  const [renaming, setRenaming] = useState<string | null>(null);
  const saved = useQuery({ queryKey: ["saved-searches"], queryFn: () => call<List>("/saved-searches") });
  const changed = () => renew(queries, ["saved-searches"]);
  const save = useMutation({
    mutationFn: () => {
      const { purpose: _, ...request } = requestOf(question); // why is a matter of each time
      return call("/saved-searches", { method: "POST", body: { name: name.trim(), request } });
    },
    onSuccess: () => {
      setName("");
      return changed();
    },
  });
  const rename = useMutation({
    mutationFn: ({ id, to }: { id: string; to: string }) => call(`/saved-searches/${id}`, { method: "PATCH", body: { name: to } }),
    onSuccess: () => {
      setRenaming(null);
      return changed();
    },
  });
  const remove = useMutation({
    mutationFn: (id: string) => call(`/saved-searches/${id}`, { method: "DELETE" }),
    onSuccess: changed,
  });
  const own = question.picture?.kind === "file";
  const missing = whyNot(question);
  const open = (search: SavedSearch) => {
    close();
    const { caseId, reason } = question;
    void run({ ...questionOf(search.request, zone), caseId, reason });
  };
  const failed = save.error ?? rename.error ?? remove.error ?? saved.error;
  return (
    <div className="choice">
      {failed && <Notice alert>{sentence(failed)}</Notice>}
      {saved.data?.saved_searches.length === 0 && <p className="small muted">None yet.</p>}
      <ul className="saved">
        {saved.data?.saved_searches.map((search) => (
          <li className="row" key={search.id}>
            {renaming === search.id ? (
              <form
                className="row grow"
                onSubmit={(event) => {
                  event.preventDefault();
                  rename.mutate({ id: search.id, to: String(new FormData(event.currentTarget).get("name")) });
                }}
              >
                <input name="name" className="grow" defaultValue={search.name} aria-label="New name" required maxLength={255} autoFocus />
                <button type="submit" className="button">
                  Rename
                </button>
              </form>
            ) : (
              <>
                <button type="button" className="open grow clip" onClick={() => open(search)}>
                  {search.name}
                </button>
                <button type="button" className="button quiet tiny" onClick={() => setRenaming(search.id)} aria-label={`Rename ${search.name}`}>
                  Rename
                </button>
                <button type="button" className="button quiet bare" aria-label={`Remove ${search.name}`} onClick={() => remove.mutate(search.id)}>
                  <Icon name="close" />
                </button>
              </>
            )}
          </li>
        ))}
      </ul>
      <form
        className="row"
        onSubmit={(event) => {
          event.preventDefault();
          save.mutate();
        }}
      >
        <input
          className="grow"
          value={name}
          onChange={(event) => setName(event.target.value)}
          placeholder="Save this search as …"
          aria-label="Name of the search to save"
          maxLength={255}
          disabled={own || missing !== null}
        />
        <button type="submit" className="button" disabled={own || missing !== null || !name.trim() || save.isPending}>
          Save
        </button>
      </form>
      {own && <p className="small muted">A picture of your own is not kept. Add it to the gallery first, then search with it there.</p>}
    </div>
  );
}
