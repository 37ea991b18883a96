/**
 * One request at a time: what the page says while the service works, how it is stopped, where an error stands.
 */

import { byId, fault } from "./dom.js";
import { askKey } from "./key.js";
import { ServiceError, ask, duration } from "./service.js";

let running = null; // what can be stopped: AbortController

export const isWorking = () => running !== null;

/** Asks the service while the page says what goes on; nothing where it was stopped or failed, which is then said. */
export async function work(form, doing, path, body) {
  const status = byId(`${form}-status`);
  running = new AbortController();
  busy(form, true);
  status.textContent = `${doing} … Escape stops it.`;
  const onWait = (seconds, code) => {
    const why = code === 429 ? "That was more than this key may ask for just now" : "The service is busy";
    status.textContent = `${why}: asking again in ${duration(seconds)} … Escape stops it.`;
  };
  try {
    return await ask(path, body, { signal: running.signal, onWait });
  } catch (error) {
    status.textContent = error.name === "AbortError" ? "Stopped." : "";
    if (error instanceof ServiceError) complain(form, error);
    else if (error.name !== "AbortError") throw error;
    return null;
  } finally {
    running = null;
    busy(form, false);
  }
}

function busy(form, now) {
  const stopping = byId(`${form}-stop`);
  const place = byId(`${form}-form`);
  if (!now && document.activeElement === stopping) place.querySelector("[type=submit]").focus();
  stopping.hidden = !now;
  place.setAttribute("aria-busy", String(now));
  for (const button of document.querySelectorAll("main form [type=submit].main")) {
    button.setAttribute("aria-disabled", String(now)); // not "disabled", which would lose the keyboard's place
  }
}

/** An error where it can be acted on: at the key, at the field that it names, or at the form. */
function complain(form, error) {
  if (error.field === "key") {
    askKey(error.message);
    return;
  }
  const named = { post: "text", "post.text": "text", "post.title": "text", draft: "reply" }[error.field];
  fault(byId(named ?? { post: "text", reply: "reply" }[form]), error.message, Boolean(named));
}

/** Says that it is done, and goes on to what came unless the person has gone elsewhere meanwhile. */
export function done(form, text, next) {
  byId(`${form}-status`).textContent = text;
  const here = document.activeElement;
  if (here === document.body || byId(`${form}-form`).contains(here) && here.type === "submit") byId(next).focus();
}

export function stop() {
  running?.abort();
}
