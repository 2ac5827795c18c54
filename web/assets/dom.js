/** Owns making and changing elements. Text is always set as text: nothing that a server says becomes markup. */

export const byId = (id) => document.getElementById(id);

/** `element("p", { class: "muted" }, "text", child, …)` */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

/** Shows the text in an element, or hides it when there is none. */
export function tell(target, text) {
  target.textContent = text ?? "";
  target.hidden = !text;
}
