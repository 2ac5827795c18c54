/** Owns how sessions look: the card of an active one, the row of an ended one. */

import { element } from "./dom.js";
import { ideUrl } from "./links.js";
import { STATES, duration, moment } from "./words.js";

export const ACTIVE = ["starting", "running", "stopping"];
export const ENDED = ["stopped", "error"];

/** `stop` is called with the session when its button is pressed. */
export function card(session, stop) {
  const running = session.status === "running";
  const title = element(
    "h2",
    {},
    element("span", {}, "Session ", element("code", {}, session.slug)),
    element("span", { class: `state ${session.status}` }, STATES[session.status]),
  );
  const buttons = element("div", { class: "buttons" });
  if (running) buttons.append(element("a", { class: "button primary", href: ideUrl(session.slug) }, "Open IDE"));
  if (session.status !== "stopping") {
    const button = element("button", { type: "button", class: "danger", "aria-label": `Stop session ${session.slug}` }, "Stop");
    button.addEventListener("click", () => stop(session));
    buttons.append(button);
  }
  return element(
    "li",
    { class: "card session", "data-id": session.id, "data-status": session.status },
    element("div", {}, title, element("p", {}, line(session))),
    buttons,
  );
}

function line(session) {
  if (session.status === "starting") return "The IDE is not ready yet.";
  if (session.status === "stopping") return "Saving your files and freeing the GPU…";
  return `GPU ${session.gpu_id} · running for ${duration(Date.now() - new Date(session.started_at ?? session.created_at))}`;
}

export function row(session) {
  const ran = session.started_at && session.stopped_at ? new Date(session.stopped_at) - new Date(session.started_at) : null;
  const reason = session.error_message ? element("span", { class: "reason" }, session.error_message) : null;
  return element(
    "tr",
    {},
    element("th", { scope: "row" }, element("code", {}, session.slug)),
    element("td", { "data-label": "Started" }, moment(session.started_at ?? session.created_at)),
    element("td", { "data-label": "Ran for" }, ran === null ? "–" : duration(ran)),
    element("td", { "data-label": "GPU" }, String(session.gpu_id)),
    element("td", {}, element("span", { class: `state ${session.status}` }, STATES[session.status]), reason),
  );
}
