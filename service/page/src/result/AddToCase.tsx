/** Put a result into a case, with a note; open a case for it if there is none. */

import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { call, sentence } from "../api/client";
import { renew } from "../api/renew";
import type { Case } from "../api/types";
import { Dialog } from "../parts/Dialog";
import { Notice } from "../parts/states";
import { useOpenCases } from "../search/PurposeBar";
import { useWork } from "../search/workspace";

const NEW = "new";

export function AddToCase({ search, image, onClose }: { search: string; image: string; onClose: () => void }) {
  const queries = useQueryClient();
  const cases = useOpenCases();
  const { question, update } = useWork();
  const [chosen, setChosen] = useState<string | null>(question.caseId);
  const into = chosen ?? cases.data?.cases[0]?.id ?? NEW;
  const add = useMutation({
    mutationFn: async (form: FormData) => {
      const note = String(form.get("note") ?? "").trim();
      const id = into === NEW ? (await call<Case>("/cases", { method: "POST", body: { title: String(form.get("title")).trim() } })).id : into;
      setChosen(id); // a second try must not open a second case
      await call(`/cases/${id}/items`, { method: "POST", body: { search_id: search, image_id: image, ...(note && { note }) } });
      return id;
    },
    onSuccess: (id) => {
      if (!question.caseId) update({ caseId: id }); // one now works on it
      onClose();
    },
    onSettled: () => {
      void renew(queries, ["cases"]);
      void renew(queries, ["case"]);
    },
  });
  return (
    <Dialog title="Add to a case" onClose={onClose}>
      <form
        className="stack"
        onSubmit={(event) => {
          event.preventDefault();
          add.mutate(new FormData(event.currentTarget));
        }}
      >
        <label className="field">
          <span>Case</span>
          <select value={into} onChange={(event) => setChosen(event.target.value)}>
            {cases.data?.cases.map(({ id, title }) => (
              <option key={id} value={id}>
                {title}
              </option>
            ))}
            <option value={NEW}>A new case …</option>
          </select>
        </label>
        {into === NEW && (
          <label className="field">
            <span>Title</span>
            <input name="title" required maxLength={255} placeholder="Better a reference than a name" autoFocus />
          </label>
        )}
        <label className="field">
          <span>Note</span>
          <textarea name="note" rows={3} maxLength={2000} />
        </label>
        {(add.error ?? cases.error) && <Notice alert>{sentence(add.error ?? cases.error)}</Notice>}
        <div className="row">
          <button type="submit" className="button primary" disabled={add.isPending || cases.isLoading}>
            Add
          </button>
          <button type="button" className="button" onClick={onClose}>
            Cancel
          </button>
        </div>
      </form>
    </Dialog>
  );
}
