/** Owns talking to /api/v1: envelopes in, problems out as one kind of error. */

const BASE = "/api/v1";
const READ_TIMEOUT_MS = 15_000;

/** What went wrong, as the server said it. `status` is 0 when no answer came at all. */
export class Problem extends Error {
  constructor(status, document, retryAfterSeconds) {
    super(document.detail || document.title || "Request failed");
    this.status = status;
    this.detail = document.detail || "";
    this.code = document.code || "";
    this.requestId = document.request_id || "";
    this.errors = Array.isArray(document.errors) ? document.errors : [];
    this.retryAfterSeconds = retryAfterSeconds;
  }
}

/** `{data, meta}` of an answer. Throws Problem. */
export async function request(method, path, body) {
  const options = { method, credentials: "same-origin", cache: "no-store", headers: { Accept: "application/json" } };
  if (method === "GET") {
    // Only reading ends early: whether a change was made would be unknown.
    options.signal = AbortSignal.timeout(READ_TIMEOUT_MS);
  } else {
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body ?? {});
  }
  let answer;
  try {
    answer = await fetch(BASE + path, options);
  } catch {
    throw new Problem(0, {}, 0);
  }
  const document = await answer.json().catch(() => null);
  if (!answer.ok) {
    throw new Problem(answer.status, document ?? {}, Number(answer.headers.get("Retry-After")) || 0);
  }
  if (document === null) throw new Problem(0, {}, 0); // broken off on its way
  return { data: document.data, meta: document.meta };
}

export const me = async () => (await request("GET", "/me")).data;
export const signIn = async (email, password) => (await request("POST", "/auth/login", { email, password })).data;
export const signUp = async (email, password) => (await request("POST", "/auth/signup", { email, password })).data;
export const signOut = () => request("POST", "/auth/logout");
export const startSession = async () => (await request("POST", "/sessions")).data.session;
export const stopSession = (id) => request("POST", `/sessions/${encodeURIComponent(id)}/stop`);

/** One page of one's own sessions, newest first: `{sessions, cursor}`; `cursor` is null on the last page. */
export async function listSessions(statuses, limit, cursor = null) {
  const query = new URLSearchParams({ status: statuses.join(","), limit: String(limit) });
  if (cursor !== null) query.set("cursor", cursor);
  const { data, meta } = await request("GET", `/sessions?${query}`);
  return { sessions: data, cursor: meta.has_more ? meta.next_cursor : null };
}
