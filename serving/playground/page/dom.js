/**
 * The few ways in which this page changes itself.
 *
 * What people or models wrote goes in as text nodes: there is no way from a string to markup here,
 * and the page's Trusted Types policy refuses one in the browser as well.
 */

export const byId = (id) => document.getElementById(id);

/** A new element; children are elements or strings, and strings become text. */
export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key in made) made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

/** Shows `text` in `place`, or hides it where there is none. */
export function show(place, text) {
  place.textContent = text ?? "";
  place.hidden = !text;
}

/**
 * Says beside `field` what is wrong and takes the reader there; without a text it takes that back.
 * `wrong` false leaves the field unmarked, where what failed is not what it holds.
 */
export function fault(field, text = "", wrong = true) {
  byId(`${field.id}-problem`).textContent = text;
  field.toggleAttribute("aria-invalid", false);
  if (text && wrong) {
    field.setAttribute("aria-invalid", "true");
    field.focus();
  }
}
