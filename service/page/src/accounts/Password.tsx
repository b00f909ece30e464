import { useMutation } from "@tanstack/react-query";
import { call, sentence } from "../api/client";
import { Dialog } from "../parts/Dialog";
import { Notice } from "../parts/states";

/** The own password; all other sessions of the user end. */
export function Password({ onClose }: { onClose: () => void }) {
  const change = useMutation({
    mutationFn: (form: FormData) =>
      call("/session/password", {
        method: "PUT",
        body: { current_password: String(form.get("current")), new_password: String(form.get("new")) },
      }),
    onSuccess: onClose,
  });
  return (
    <Dialog title="Change password" onClose={onClose}>
      <form
        className="stack"
        onSubmit={(event) => {
          event.preventDefault();
          change.mutate(new FormData(event.currentTarget));
        }}
      >
        <label className="field">
          <span>Current password</span>
          <input name="current" type="password" autoComplete="current-password" required />
        </label>
        <label className="field">
          <span>New password, 12 characters or more</span>
          <input name="new" type="password" autoComplete="new-password" minLength={12} maxLength={200} required />
        </label>
        {change.isError && <Notice alert>{sentence(change.error)}</Notice>}
        <div className="row">
          <button type="submit" className="button primary" disabled={change.isPending}>
            Change
          </button>
          <button type="button" className="button" onClick={onClose}>
            Cancel
          </button>
        </div>
      </form>
    </Dialog>
  );
}
