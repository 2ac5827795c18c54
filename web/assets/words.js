/** Owns the words: problems, states, times and durations as people say them. */

const GENERAL = {
  0: "MedForge cannot be reached. Check your connection and try again.",
  401: "You are signed out. Please sign in again.",
  403: "You may not do this.",
  404: "This does not exist any more.",
  502: "MedForge cannot be reached right now. Try again in a moment.",
  503: "MedForge is restarting. Try again in a moment.",
  504: "MedForge took too long to answer. Try again in a moment.",
};

const STARTING = {
  "No GPUs available": "All GPUs are in use right now. Try again a little later.",
  "Concurrent session limit reached": "You already have as many sessions as you may have at once. Stop one first.",
  "The session was stopped while it was starting.": "The session was stopped while it was starting.",
};

/** One or two sentences for a problem; `starting`: it came from starting a session. */
export function explain(problem, { starting = false } = {}) {
  if (starting && problem.status === 409) return STARTING[problem.detail] ?? problem.detail;
  if (problem.status === 429) return `Too many attempts. Try again ${soon(problem.retryAfterSeconds)}.`;
  if (starting && problem.status === 500) {
    return `The session could not be started, and nothing of it is left running. Try again; if it happens again, tell your operator${reference(problem)}.`;
  }
  if (problem.status === 503 && problem.detail) return problem.detail;
  if (problem.status in GENERAL) return GENERAL[problem.status];
  if (problem.status >= 500) return `Something went wrong on the server. Try again; if it happens again, tell your operator${reference(problem)}.`;
  return problem.detail || "This did not work.";
}

function reference(problem) {
  return problem.requestId ? ` (reference ${problem.requestId})` : "";
}

function soon(seconds) {
  // Not a moment before it works: minutes are rounded up.
  return seconds > 0 ? `in ${duration((seconds > 60 ? Math.ceil(seconds / 60) * 60 : seconds) * 1000)}` : "in a minute";
}

export const STATES = {
  starting: "Starting",
  running: "Running",
  stopping: "Stopping",
  stopped: "Stopped",
  error: "Ended by an error",
};

/** `45 seconds`, `3 minutes`, `2 h 5 min`, `3 days`. */
export function duration(milliseconds) {
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  if (seconds < 60) return plural(seconds, "second");
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return plural(minutes, "minute");
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return minutes % 60 ? `${hours} h ${minutes % 60} min` : plural(hours, "hour");
  return plural(Math.floor(hours / 24), "day");
}

function plural(count, noun) {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "numeric", minute: "2-digit" });
const DAY = new Intl.DateTimeFormat(undefined, { weekday: "short", day: "numeric", month: "short" });
const DATE = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", year: "numeric" });

/** A moment of the past, shorter the nearer it is. */
export function moment(text, now = new Date()) {
  const then = new Date(text);
  if (then.toDateString() === now.toDateString()) return `Today, ${CLOCK.format(then)}`;
  const yesterday = new Date(now.getFullYear(), now.getMonth(), now.getDate() - 1);
  if (then.toDateString() === yesterday.toDateString()) return `Yesterday, ${CLOCK.format(then)}`;
  return then.getFullYear() === now.getFullYear() ? `${DAY.format(then)}, ${CLOCK.format(then)}` : DATE.format(then);
}
