/** Owns the login page: signing in and signing up in one form, and going where the visitor wanted to go. */

import { Problem, me, signIn, signUp } from "./api.js";
import { byId, tell } from "./dom.js";
import { isSession, safeNext } from "./links.js";
import { explain } from "./words.js";

const MODES = {
  in: {
    title: "Sign in",
    submit: "Sign in",
    busy: "Signing in…",
    autocomplete: "current-password",
    question: "New here?",
    other: "Create an account",
    send: signIn,
  },
  up: {
    title: "Create an account",
    submit: "Create account",
    busy: "Creating your account…",
    autocomplete: "new-password",
    question: "Already have an account?",
    other: "Sign in",
    send: signUp,
  },
};
// A page that sends its visitor straight back would otherwise do so for ever.
const FOLLOWED_KEY = "medforge.followed";
const LOOP_MS = 15_000;

const form = byId("form");
const fields = { email: byId("email"), password: byId("password") };
const submit = byId("submit");
const problem = byId("problem");
const next = safeNext(new URLSearchParams(window.location.search).get("next"));
let mode = MODES[window.location.hash === "#signup" ? "up" : "in"];

function show() {
  document.title = `${mode.title} · MedForge`;
  byId("title").textContent = mode.title;
  submit.textContent = mode.submit;
  fields.password.autocomplete = mode.autocomplete;
  byId("password-hint").hidden = mode !== MODES.up;
  byId("switch-text").textContent = mode.question;
  byId("switch").textContent = mode.other;
  tell(problem, "");
  for (const name of Object.keys(fields)) fault(name, "");
}

/** Says what is wrong with a field, to eyes and to screen readers. */
function fault(name, text) {
  const told = byId(`${name}-fault`);
  tell(told, text);
  fields[name].setAttribute("aria-invalid", String(Boolean(text)));
  const described = [name === "password" && mode === MODES.up ? "password-hint" : "", text ? told.id : ""];
  fields[name].setAttribute("aria-describedby", described.join(" ").trim());
}

function check() {
  const email = fields.email.value.trim();
  const password = fields.password.value;
  fault("email", /^\S+@\S+$/.test(email) ? "" : "Please enter your e-mail address.");
  if (!password) fault("password", "Please enter your password.");
  else if (mode === MODES.up && [...password].length < 8) fault("password", "Please use at least 8 characters.");
  else fault("password", "");
  const wrong = Object.values(fields).find((field) => field.getAttribute("aria-invalid") === "true");
  wrong?.focus();
  return wrong === undefined;
}

async function send(event) {
  event.preventDefault();
  tell(problem, "");
  if (!check()) return;
  busy(true);
  try {
    await mode.send(fields.email.value.trim(), fields.password.value);
    leave();
  } catch (error) {
    busy(false);
    refused(error);
  }
}

function busy(on) {
  submit.disabled = on;
  submit.textContent = on ? mode.busy : mode.submit;
  form.setAttribute("aria-busy", String(on));
}

function refused(error) {
  if (!(error instanceof Problem)) throw error;
  const faults = error.errors.filter((one) => one.loc?.[1] in fields);
  for (const one of faults) fault(one.loc[1], one.msg);
  if (faults.length > 0) {
    fields[faults[0].loc[1]].focus();
  } else if (error.status === 409 && mode === MODES.up) {
    fault("email", "There is an account with this address already. Sign in instead?");
    fields.email.focus();
  } else if (error.status === 401) {
    tell(problem, "The e-mail address or the password is not right.");
    fields.password.select();
  } else {
    tell(problem, explain(error));
  }
}

/** Goes on; `replace` keeps the login page out of the way of the Back button. */
function leave() {
  window.location.replace(next);
}

/** A visitor who is signed in already has nothing to do here. */
async function greet() {
  let user;
  try {
    user = await me();
  } catch {
    return; // not signed in, which is why one comes here; if it is anything else, signing in will tell
  }
  const last = JSON.parse(sessionStorage.getItem(FOLLOWED_KEY) ?? "null");
  if (last?.next === next && Date.now() - last.at < LOOP_MS) {
    tell(problem, `You are signed in as ${user.email}, but the page sent you back here. Sign in again, or go to the dashboard.`);
    return;
  }
  sessionStorage.setItem(FOLLOWED_KEY, JSON.stringify({ next, at: Date.now() }));
  leave();
}

form.addEventListener("submit", send);
byId("switch").addEventListener("click", () => {
  mode = mode === MODES.in ? MODES.up : MODES.in;
  show();
  (fields.email.value ? fields.password : fields.email).focus();
});
byId("reveal").addEventListener("click", (event) => {
  const shown = fields.password.type === "text";
  fields.password.type = shown ? "password" : "text";
  event.currentTarget.textContent = shown ? "Show" : "Hide";
  event.currentTarget.setAttribute("aria-pressed", String(!shown));
});
if (isSession(next)) tell(byId("destination"), "You will be taken to your session.");
show();
greet();
