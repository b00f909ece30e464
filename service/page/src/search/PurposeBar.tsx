/** Why somebody searches: a case, a reason. Always in sight; kept in the audit. */

import { useQuery } from "@tanstack/react-query";
import { call } from "../api/client";
import type { CaseList } from "../api/types";
import { useHere } from "../session";
import { useWork } from "./workspace";

export function useOpenCases() {
  const { may } = useHere();
  return useQuery({
    queryKey: ["cases", "open"],
    queryFn: () => call<CaseList>("/cases?state=open&limit=200"),
    enabled: may("case"),
  });
}

export function PurposeBar() {
  const { question, update, error } = useWork();
  const { may } = useHere();
  const cases = useOpenCases();
  const missing = error instanceof Error && "code" in error && error.code === "purpose_required";
  return (
    <div className="purpose" role="group" aria-label="Purpose">
      {may("case") && (
        <label>
          <span>Case</span>
          <select value={question.caseId ?? ""} onChange={(event) => update({ caseId: event.target.value || null })}>
            <option value="">none</option>
            {cases.data?.cases.map(({ id, title }) => (
              <option key={id} value={id}>
                {title}
              </option>
            ))}
          </select>
        </label>
      )}
      <label className="grow">
        <span>Reason</span>
        <input
          value={question.reason}
          maxLength={500}
          placeholder="Why you search; kept in the audit"
          aria-invalid={missing}
          autoComplete="off"
          onChange={(event) => update({ reason: event.target.value })}
        />
      </label>
    </div>
  );
}
