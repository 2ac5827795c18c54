/** Owns the dashboard: what is running, starting and stopping it, and what ran before. */

import { Problem, listSessions, me, signOut, startSession, stopSession } from "./api.js";
import { byId, tell } from "./dom.js";
import { ideUrl } from "./links.js";
import { ACTIVE, ENDED, card, row } from "./sessions.js";
import { duration, explain } from "./words.js";

const ACTIVE_LIMIT = 50;
const PAST_LIMIT = 20;
// While something changes one looks often; otherwise only to notice what others or the host have ended.
const SOON_MS = 1_000;
const LATER_MS = 15_000;

const start = byId("start");
const startButton = byId("start-button");
const progress = byId("progress");
const problem = byId("problem");

let user = null;
let active = [];
let starting = false;
let cursor = null;
let timer = 0;

function announce(text) {
  byId("announcement").textContent = text;
}

/** Every failure ends here: a signed-out visitor goes to sign in, anyone else reads what happened. */
function failed(error, context = {}) {
  if (!(error instanceof Problem)) throw error;
  if (error.status === 401) {
    window.location.replace("/login");
    return;
  }
  tell(problem, explain(error, context));
}

function show() {
  const full = user !== null && active.length >= user.max_concurrent_sessions;
  progress.hidden = !starting;
  start.hidden = starting || full;
  byId("start-title").textContent = active.length > 0 ? "Start another session" : "Start working";
  byId("active").replaceChildren(...shown().map((session) => card(session, stop)));
}

/** The one that this page is starting has its own place. */
function shown() {
  return starting ? active.filter((session) => session.status !== "starting") : active;
}

async function look() {
  clearTimeout(timer);
  const before = active;
  try {
    active = (await listSessions(ACTIVE, ACTIVE_LIMIT)).sessions;
    if (before.some((old) => !active.some((session) => session.id === old.id))) await past();
    redraw(before);
    reachable(true);
  } catch (error) {
    // What is on the screen stays; the next look may find the server again.
    if (error instanceof Problem && error.status !== 401) reachable(false, error);
    else failed(error);
  }
  if (!document.hidden) timer = setTimeout(look, starting || active.some(changing) ? SOON_MS : LATER_MS);
}

const changing = (session) => session.status !== "running";

/** Draws anew only when something is new, so that a button is not replaced under a finger. */
function redraw(before) {
  const same = before.length === active.length && before.every((old, n) => old.id === active[n].id && old.status === active[n].status);
  if (!same) {
    keepFocus(show);
    for (const session of active) {
      const old = before.find((one) => one.id === session.id);
      if (old && old.status !== session.status) announce(`Session ${session.slug} is ${session.status}.`);
    }
  }
}

/** A card that is drawn anew keeps the keyboard's place. */
function keepFocus(draw) {
  const holder = document.activeElement?.closest("[data-id]");
  draw();
  if (holder && !document.contains(holder)) {
    const again = document.querySelector(`[data-id="${CSS.escape(holder.dataset.id)}"]`);
    (again?.querySelector("button, a") ?? byId(start.hidden ? "history-title" : "start-title"))?.focus();
  }
}

let unreachable = false;

function reachable(yes, error = null) {
  if (yes && unreachable) tell(problem, "");
  if (!yes) tell(problem, explain(error));
  unreachable = !yes;
}

async function startNew() {
  tell(problem, "");
  starting = true;
  show();
  byId("progress-title").focus();
  const began = Date.now();
  const ticking = setInterval(() => (byId("elapsed").textContent = duration(Date.now() - began)), 1000);
  try {
    const session = await startSession();
    byId("progress-title").textContent = "Opening your IDE…";
    announce("Your session is ready. The IDE opens now.");
    window.location.assign(ideUrl(session.slug));
  } catch (error) {
    starting = false;
    byId("progress-title").textContent = "Starting your session…";
    await look();
    show();
    failed(error, { starting: true });
    if (!start.hidden) startButton.focus();
  } finally {
    clearInterval(ticking);
    byId("elapsed").textContent = "";
  }
}

async function stop(session) {
  const dialog = byId("confirm");
  dialog.returnValue = "";
  dialog.showModal();
  await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
  if (dialog.returnValue !== "stop") return;
  tell(problem, "");
  try {
    await stopSession(session.id);
    announce(`Session ${session.slug} is being stopped.`);
  } catch (error) {
    failed(error);
  }
  await look();
}

/** The newest ended sessions, from the beginning. */
async function past() {
  const page = await listSessions(ENDED, PAST_LIMIT);
  byId("past").replaceChildren(...page.sessions.map(row));
  byId("history").hidden = page.sessions.length === 0;
  more(page.cursor);
}

function more(next) {
  cursor = next;
  byId("more").hidden = next === null;
}

async function older() {
  try {
    const page = await listSessions(ENDED, PAST_LIMIT, cursor);
    const rows = page.sessions.map(row);
    byId("past").append(...rows);
    more(page.cursor);
    announce(`${rows.length} more sessions.`);
  } catch (error) {
    failed(error);
  }
}

async function leave() {
  try {
    await signOut();
    window.location.replace("/login");
  } catch (error) {
    failed(error);
  }
}

async function begin() {
  try {
    user = await me();
    byId("email").textContent = user.email;
    byId("account").hidden = false;
    [{ sessions: active }] = await Promise.all([listSessions(ACTIVE, ACTIVE_LIMIT), past()]);
    show();
  } catch (error) {
    failed(error);
  }
  if (!document.hidden) timer = setTimeout(look, active.some(changing) ? SOON_MS : LATER_MS);
}

startButton.addEventListener("click", startNew);
byId("sign-out").addEventListener("click", leave);
byId("more").addEventListener("click", older);
document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : user && look()));
// Back from the IDE the browser shows the page as it was left: it has to look again.
window.addEventListener("pageshow", (event) => {
  if (!event.persisted) return;
  starting = false;
  byId("progress-title").textContent = "Starting your session…";
  show();
  look();
});
begin();
