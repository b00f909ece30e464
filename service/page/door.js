// The door of the page: who is here, signing in and out, and creating the first user from a set-up link (/#setup=TOKEN).
// The session is a cookie that no script can read; kept here is only the CSRF token that changes have to carry.

const API = "/api/v1";
const $ = (id) => document.getElementById(id);
let csrf = null;

/** Headers of a request that changes something. */
export const proof = () => (csrf ? { "X-CSRF-Token": csrf } : {});

/** Returns once somebody is signed in, or at once where the service is open. */
export async function enter() {
  const token = location.hash.match(/^#setup=(.+)$/)?.[1];
  if (token) history.replaceState(null, "", location.pathname); // it is good once and belongs into no history
  const response = await fetch(`${API}/session`);
  if (response.ok) return welcome(await response.json());
  csrf = null;
  $("account").hidden = true;
  await new Promise((signedIn) => open(token, signedIn));
}

function welcome(session) {
  csrf = session.csrf_token;
  $("account").hidden = session.kind !== "user";
  $("account-name").textContent = session.name;
}

function open(token, signedIn) {
  $("door-title").textContent = token ? "Create the first user" : "Sign in";
  $("door-note").textContent = token ? "An admin, who then creates the others. The password needs 12 characters or more." : "";
  $("door-password").autocomplete = token ? "new-password" : "current-password";
  $("door-form").onsubmit = async (event) => {
    event.preventDefault();
    const typed = { name: $("door-name").value, password: $("door-password").value };
    if (token && !(await send("/setup", { token, ...typed }))) return;
    token = null; // the user is there now; what remains is to sign in
    const session = await send("/session", typed);
    if (!session) return;
    $("door-password").value = "";
    $("door").close();
    welcome(session);
    signedIn();
  };
  $("door").oncancel = (event) => event.preventDefault(); // there is nothing behind it for strangers
  if (!$("door").open) $("door").showModal();
}

/** The answer, or null after saying why there is none. */
async function send(path, body) {
  $("door-error").textContent = "";
  try {
    const options = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
    const response = await fetch(API + path, options);
    const answer = await response.json();
    if (response.ok) return answer;
    $("door-error").textContent = answer.errors?.map((error) => error.detail).join(" ") || answer.detail;
  } catch {
    $("door-error").textContent = "The service does not answer. Is it still running?";
  }
  return null;
}

$("sign-out")?.addEventListener("click", async () => {
  await fetch(`${API}/session`, { method: "DELETE", headers: proof() });
  location.replace(location.pathname); // nothing of what was seen stays on the page
});
