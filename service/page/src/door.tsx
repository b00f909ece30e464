/** Signing in, and creating the first user from a set-up link (/#setup=TOKEN). */

import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { call, sentence, setCsrf } from "./api/client";
import { MARK } from "./mark";
import type { Session } from "./api/types";

import { Notice } from "./parts/states";

export function Door({ token, ended, onIn }: { token: string | null; ended: boolean; onIn: () => void }) {
  const queries = useQueryClient();
  const [setUp, setSetUp] = useState(token);
  const enter = useMutation({
    mutationFn: async (form: FormData) => {
      const typed = { name: String(form.get("name")), password: String(form.get("password")) };
      if (setUp) {
        await call("/setup", { method: "POST", body: { token: setUp, ...typed } });
        setSetUp(null); // the user is there now; what remains is to sign in
      }
      return call<Session>("/session", { method: "POST", body: typed });
    },
    onSuccess: (session) => {
      setCsrf(session.csrf_token);
      queries.setQueryData(["session"], session);
      onIn();
    },
  });
  return (
    <main className="door">
      <form
        autoComplete="on"
        onSubmit={(event) => {
          event.preventDefault();
          enter.mutate(new FormData(event.currentTarget));
        }}
      >
        <img src={MARK} alt="" />
        <div>
          <h1>{setUp ? "Create the first user" : "Sign in"}</h1>
          <p className="muted">
            {setUp
              ? "An admin, who then creates the others. The password needs 12 characters or more."
              : ended
                ? "Your session has ended. Sign in to go on where you were."
                : "Person search"}
          </p>
        </div>
        <label className="field">
          <span>Name</span>
          <input name="name" autoComplete="username" required maxLength={100} autoFocus />
        </label>
        <label className="field">
          <span>Password</span>
          <input
            name="password"
            type="password"
            autoComplete={setUp ? "new-password" : "current-password"}
            required
            minLength={setUp ? 12 : 1}
            maxLength={200}
          />
        </label>
        {enter.isError && <Notice alert>{sentence(enter.error)}</Notice>}
        <button type="submit" className="button primary" disabled={enter.isPending}>
          {enter.isPending ? "One moment …" : setUp ? "Create and sign in" : "Sign in"}
        </button>
      </form>
    </main>
  );
}
