/** The key: taken from its field, held in memory, forgotten when asked or when the page is left. */

import { byId, fault } from "./dom.js";
import { forgetKey, holdKey } from "./service.js";

export function listenForKey() {
  byId("key-form").addEventListener("submit", takeKey);
  byId("forget-key").addEventListener("click", () => askKey());
}

/** Forgets the key and asks for another one, saying why where there is a reason. */
export function askKey(why = "") {
  dropKey();
  byId("key").focus();
  fault(byId("key"), why);
}

export function dropKey() {
  forgetKey();
  byId("key").value = "";
  hold(false);
}

function takeKey(event) {
  event.preventDefault();
  const field = byId("key");
  const key = field.value.trim();
  if (!/^[\x21-\x7e]+$/.test(key)) {
    fault(field, key ? "A key holds letters, digits and signs without spaces: copy it whole." : "Enter your key first.");
    return;
  }
  holdKey(key);
  field.value = "";
  fault(field);
  hold(true);
  byId("key-state").focus();
}

function hold(held) {
  byId("key-form").hidden = held;
  byId("key-held").hidden = !held;
}
