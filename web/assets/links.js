/** Owns addresses: where a session's IDE is, and where the login page may lead. */

const SESSION_LABEL = /^s-[a-z2-7]{8}$/;

/** The IDE of a session; `here` is the location of a page of the platform. */
export function ideUrl(slug, here = window.location) {
  return `${here.protocol}//s-${slug}.${here.host}/`;
}

/**
 * The address that `next` names when it is the platform's own or a session's, else the dashboard's.
 * Judged after parsing, as the browser itself will read it; the parsed form is what is returned.
 */
export function safeNext(next, here = window.location) {
  const dashboard = new URL("/", here.origin).href;
  if (!next) return dashboard;
  let url;
  try {
    url = new URL(next, here.origin);
  } catch {
    return dashboard;
  }
  if (url.protocol !== here.protocol || url.username || url.password) return dashboard;
  if (url.host === here.host) return url.pathname === "/login" ? dashboard : url.href;
  return isSessionHost(url.host, here) ? url.href : dashboard;
}

/** Whether an address that `safeNext` gave is a session's. */
export function isSession(address, here = window.location) {
  return isSessionHost(new URL(address).host, here);
}

function isSessionHost(host, here) {
  const suffix = `.${here.host}`;
  return host.endsWith(suffix) && SESSION_LABEL.test(host.slice(0, -suffix.length));
}
